"""Figures 1 and 2, drawn from records, and the numbers that they show.

Imports no jax, and leaves matplotlib's global state as it found it.
"""

import io
import math
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from vibx import paper, runs
from vibx.runs import RunError, StoredRun

in_style = matplotlib.rc_context(fname=Path(__file__).with_name("vibx.mplstyle"))

WIDTH = 5.5  # inches, the paper's column
CLASSES = 10
CLASS_BITS = math.log2(CLASSES)  # what z must tell to name the class

K256 = "objective=vib,K=256,bottleneck=diagonal,data.validation=0"
K2 = "objective=vib,K=2,bottleneck=full_covariance,decoder=linear,data.validation=0"


class Curve(NamedTuple):
    """A curve of Figure 1: which images, which quantity of their record, and how it looks.

    No two look the same in grey.
    """

    images: str
    quantity: str
    style: dict[str, Any]


BLUE, VERMILION = "#0072B2", "#D55E00"  # told apart by colour-blind eyes (Okabe and Ito)
TRAIN = {"color": BLUE, "linestyle": "-.", "marker": "s"}
TEST = {"color": VERMILION, "linestyle": "-", "marker": "o"}
HOLLOW = {"markerfacecolor": "none", "markersize": 5}  # seen behind the averages' markers
ERRORS = {
    "train, 1 shot eval": Curve("train", "error_1", {**TRAIN, "linestyle": ":", **HOLLOW}),
    "train, avg eval": Curve("train", "error_mc", TRAIN),
    "test, 1 shot eval": Curve("test", "error_1", {**TEST, "linestyle": "--", **HOLLOW}),
    "test, avg eval": Curve("test", "error_mc", TEST),
}
REFERENCE = {"color": "0.5", "linewidth": 0.6, "zorder": 0}
PUBLISHED = {"color": "black", "linestyle": "none", "zorder": 3}

QUANTILE_95 = math.sqrt(-2 * math.log(0.05))  # sqrt of chi-square's, which 2 dimensions have closed
CUT = 0.005  # share of the ellipses that may leave Figure 2 at either end of an axis
PIXELS = 300  # of the entropy, along an axis
GREYS = LinearSegmentedColormap.from_list("entropy", ["1.0", "0.63"])  # the colours show on both

# Any two differ by 0.12 or more in Oklab for normal, protan, deutan and tritan eyes, by 0.11 from
# every grey of the background; matplotlib's own ten come as near as 0.007.
CLASS_COLORS = (
    "#000000",
    "#e61919",
    "#7eb8f1",
    "#66ff33",
    "#aa4499",
    "#eb9947",
    "#1919e6",
    "#730d0d",
    "#7070ff",
    "#1d2e63",
)


@in_style
def figure1(k256: list[StoredRun], k2: list[StoredRun]) -> tuple[Figure, pd.DataFrame]:
    """Error, I(Z,X) and I(Z,Y) over beta: Figure 1 (a), (c), (d) from `k256`, (b) from `k2`.

    Lines are means over the seeds, bands reach from the lowest seed to the highest. Beyond the
    paper: its published errors, the best beta, and log2(10) bits.

    Returns:
      The figure, and every number in it: `x` and `y` are the record's quantities `x_name` and
      `y_name` (errors are fractions, what ends in `_bits` is in bits), `y_low` and `y_high` the
      band's.

    Raises:
      RunError: runs that do not belong in one panel, or that lack some seeds.
    """
    check(k256, K256)
    check(k2, K2)
    a, b = error_numbers(k256, "a"), error_numbers(k2, "b")
    c = information_numbers(k256, "c", x="izx_upper_bits", y="izy_lower_bits")
    d = information_numbers(k256, "d", x="beta", y="izx_upper_bits")
    figure = Figure(figsize=(WIDTH, 4.8))
    panels = figure.subplots(2, 2)
    draw_errors(panels[0, 0], a, title="(a) $K = 256$", note=note(k256))
    draw_errors(panels[0, 1], b, title="(b) $K = 2$, full covariance", note=note(k2))
    draw_plane(panels[1, 0], c)
    draw_rate(panels[1, 1], d)
    return figure, pd.concat([a, b, c, d], ignore_index=True)


@in_style
def figure2(stored: list[StoredRun]) -> tuple[Figure, pd.DataFrame]:
    """Posteriors of 1,000 test images in two dimensions at the three betas of Figure 2.

    Each p(z|x) is the ellipse that holds 95% of it, coloured by the true class, over the entropy
    of q(y|z) in bits. Of several seeds the first is shown.

    Returns:
      The figure, and per panel and image the mean and the covariance; errors are fractions.

    Raises:
      RunError: runs that do not belong in one figure, a beta without a run, or a run without
        its embedding.
    """
    check(stored, K2)
    chosen = [first_seed(stored, beta) for beta in paper.FIGURE_2]
    embeddings = [read_embedding(run) for run in chosen]
    figure = Figure(figsize=(WIDTH, 2.75))
    panels = figure.subplots(1, len(chosen))
    for letter, axes, run, embedding in zip("abc", panels, chosen, embeddings, strict=True):
        image = draw_embedding(axes, embedding)
        entitle(axes, letter, run.record)
    panels[0].set_ylabel("$z_2$", labelpad=0)
    figure.colorbar(image, ax=panels, label="entropy of $q(y|z)$, bits", pad=0.02, aspect=25)
    handles = [Line2D([], [], color=color, marker="o", ls="none") for color in CLASS_COLORS]
    digits = [str(digit) for digit in range(CLASSES)]
    figure.legend(handles, digits, loc="outside lower center", ncols=CLASSES, handlelength=1)
    numbers = map(embedding_numbers, "abc", chosen, embeddings)
    return figure, pd.concat(numbers, ignore_index=True)


@in_style
def save(figure: Figure, numbers: pd.DataFrame, output: Path, name: str) -> list[Path]:
    """Write a figure as <name>.pdf and .png, and its numbers as .csv; the paths written.

    The same figure gives the same bytes: the PDF carries no date.
    """
    contents = {
        "pdf": rendered(figure, format="pdf", metadata={"CreationDate": None}),
        "png": rendered(figure, format="png"),
        "csv": numbers.to_csv(index=False).encode(),
    }
    output.mkdir(parents=True, exist_ok=True)
    paths = [output / f"{name}.{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        runs.write_whole(path, content)
    return paths


def rendered(figure: Figure, **options: Any) -> bytes:
    """The bytes of a figure's file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def check(stored: list[StoredRun], conditions: str) -> None:
    """Refuse runs from which a panel would come out wrong or thinner than it looks."""
    if not stored:
        raise RunError(f"no runs with {conditions}")
    first = stored[0].record
    seeds: dict[float, set[int]] = {}
    for _, record in stored:
        config, run_id = record["config"], record["run_id"]
        if not runs.matching([record], conditions):
            raise RunError(f"{run_id}: not a run with {conditions}")
        same = {key for key in config if config[key] == first["config"][key]}
        if different := sorted(config.keys() - same - {"beta", "seed"}):
            raise RunError(
                f"{run_id} and {first['run_id']} differ in {', '.join(different)}: the runs of "
                f"a panel may differ in beta and seed only"
            )
        seeds.setdefault(config["beta"], set()).add(config["seed"])
    every = set().union(*seeds.values())
    for beta, present in seeds.items():
        if missing := sorted(every - present):
            raise RunError(
                f"beta={beta:g} lacks seed {', '.join(map(str, missing))}, which other betas have"
            )


# Figure 1


def error_numbers(stored: list[StoredRun], panel: str) -> pd.DataFrame:
    """The numbers of panel (a) or (b): four curves, the paper's points, the best beta."""
    curves = [
        curve_numbers(stored, panel, label, curve.images, x="beta", y=curve.quantity)
        for label, curve in ERRORS.items()
    ]
    average = curves[-1]
    best = average.loc[average["y"].idxmin()]
    marked = [
        *published_points(stored[0].record["config"]),
        {"curve": "best beta", "x": best["x"], "y_name": "error_mc", "y": best["y"]},
    ]
    points = pd.DataFrame(marked).assign(panel=panel, x_name="beta")
    return pd.concat([*curves, points.assign(beta=points["x"])], ignore_index=True)


def published_points(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What the paper prints for a panel of errors, which is on MNIST."""
    if config["data"]["name"] != "mnist":
        return []
    if config["K"] == 256:
        average = {paper.BEST_BETA: paper.TABLE_1["vib"]}
        return [paper_point("Table 1", "avg", beta, error) for beta, error in average.items()]
    return [
        point
        for beta, (average_error, single_error) in paper.FIGURE_2.items()
        for point in (
            paper_point("Figure 2", "1 shot", beta, single_error),
            paper_point("Figure 2", "avg", beta, average_error),
        )
    ]
