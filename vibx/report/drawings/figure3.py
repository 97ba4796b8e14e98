"""Figure 3: zeros turned into ones, image by image and model by model."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from vibx.files import Arrays
from vibx.report import attacked, runs, style
from vibx.report.attacked import MODEL, SEEDS
from vibx.report.drawings import Drawing, Files, Source
from vibx.report.style import Look, in_style
from vibx.store import StoredAttack

# What most answers to an attacked image are, and its border. The colours are the paper's; they
# differ in lightness too, and the lines without them.
OUTCOMES: dict[str, tuple[str, Look]] = {
    "target": ("the target, {target}", {"color": "#d7191c", "linestyle": "-"}),
    "true": ("the true class", {"color": "#4dc94d", "linestyle": (0, (2.5, 1.2))}),
    "other": ("another class", {"color": "#4b1d91", "linestyle": (0, (0.9, 0.9))}),
}
BORDER: Look = {"fill": False, "linewidth": 1.8}
UNDONE: Look = {"color": "black", "markerfacecolor": "white", "marker": "o", "linestyle": "none"}


def draw(source: Source) -> Files:
    """Draw Figure 3."""
    return style.files("figure3", *figure3(source.found["figure3"]), scale=source.scale)


DRAWING = Drawing("Figure 3", experiments=("figure3",), draw=draw, attacked=("table1", "figure1"))


@in_style
def figure3(targeted: list[StoredAttack]) -> tuple[Figure, pd.DataFrame]:
    """A row per image: the original, and what attacks on each model make of it.

    Borders say what most of the model's answers are, re-evaluated under independent noise; a
    circle marks an image that reached its target when the attack looked, and does not. Of several
    seeds the first is shown.

    Returns:
      The figure and what it shows: per model and image the `outcome` (a key of `OUTCOMES`),
      whether the attack saw a success, the share of the answers that are its target, and the norms
      of the perturbation in pixels of range 1.

    Raises:
      RunError: attacks that do not belong in one figure, none on the deterministic model or on
        VIB, or a model that lacks a seed of the others.
    """
    described = attacked.describe_targeted(targeted)
    shown = described.sort_values([*MODEL, *SEEDS]).drop_duplicates(MODEL)
    found = [attacked.read(targeted[row]) for row in shown.index]
    shape = runs.data_info(targeted[0].run).shape
    originals, indices = found[0]["original"], found[0]["index"]
    figure = Figure(figsize=(style.WIDTH, 0.7 + style.WIDTH * len(indices) / (len(found) + 1.6)))
    grid = figure.subplots(len(indices), len(found) + 1, squeeze=False)
    figure.supylabel("index of the test image", fontsize=style.SMALL)
    for axes, original, index in zip(grid[:, 0], originals, indices, strict=True):
        draw_image(axes, original / 255, shape)
        axes.set_ylabel(str(index), fontsize=style.SMALL, rotation=0, ha="right", va="center")
    titles = ["original", *map(column_title, shown["model"], shown["beta"])]
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=style.SMALL, linespacing=1.5)
    for column, arrays in zip(grid.T[1:], found, strict=True):
        draw_column(column, arrays, shape)
    explain_borders(figure, attacked.settings(targeted[0]))
    style.lay_out(figure)
    return figure, pd.concat(map(image_rows, shown.to_dict("records"), found), ignore_index=True)


def column_title(model: str, beta: float) -> str:
    """A model and its beta, if it has one."""
    return model if np.isnan(beta) else f"{model}, $\\beta =$\n{style.in_mathtext(beta)}"


def draw_image(axes: Axes, pixels: npt.NDArray[Any], shape: tuple[int, int, int]) -> None:
    """Show an image, grey or RGB, without ticks."""
    image = pixels.reshape(shape)
    axes.imshow(image[..., 0] if shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_column(column: npt.NDArray[Any], arrays: Arrays, shape: tuple[int, int, int]) -> None:
    """Draw a model's attacked images in their borders."""
    names = attacked.outcomes(arrays)
    undone = arrays["success"] & (names != "target")
    for axes, image, name, marked in zip(column, arrays["adversarial"], names, undone, strict=True):
        draw_image(axes, image, shape)
        look = {**BORDER, **OUTCOMES[name][1], "transform": axes.transAxes, "clip_on": False}
        axes.add_patch(Rectangle((0, 0), 1, 1, **look))
        if marked:
            axes.plot(0.86, 0.86, transform=axes.transAxes, **UNDONE)


def explain_borders(figure: Figure, given: dict[str, Any]) -> None:
    """Name the borders and the circle below the images."""
    handles: list[Patch | Line2D] = [Patch(**BORDER, **look) for _, look in OUTCOMES.values()]
    labels = [meaning.format(**given) for meaning, _ in OUTCOMES.values()]
    figure.legend(
        [*handles, Line2D([], [], **UNDONE)],
        [*labels, "a success that the attack saw is undone"],
        loc="outside lower center",
        ncols=4,
        columnspacing=1.5,
        title=f"most of {given['rechecks']} answers, re-evaluated under independent noise, are",
    )


def image_rows(model: dict[Hashable, Any], arrays: Arrays) -> pd.DataFrame:
    """What a column shows, a row per image."""
    votes, target = arrays["votes"], arrays["target"]
    return pd.DataFrame(
        {
            **{key: model[key] for key in (*MODEL, *SEEDS)},
            **{name: arrays[name] for name in ("index", "label", "target")},
            "outcome": attacked.outcomes(arrays),
            "seen": arrays["success"],
            "goal_share": votes[np.arange(len(votes)), target] / votes.sum(axis=1),
            **{name: arrays[name] for name in attacked.NORMS},
        }
    )
