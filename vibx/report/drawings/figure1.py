"""Figure 1: errors and information as beta varies."""

import math
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vibx.report import published as paper
from vibx.report import runs, style
from vibx.report.drawings import Drawing, Files, Source
from vibx.report.style import Look, in_style
from vibx.store import StoredRun


class Curve(NamedTuple):
    """A curve of errors: of which images, which quantity of their record, and how it looks."""

    images: str
    quantity: str
    look: Look


# Colour-blind eyes tell blue from vermilion (Okabe and Ito); in grey, lines and markers differ.
TRAIN: Look = {"color": "#0072B2", "linestyle": "-.", "marker": "s"}
TEST: Look = {"color": "#D55E00", "linestyle": "-", "marker": "o"}
ERRORS = {
    "train, 1 shot eval": Curve("train", "error_1", {**TRAIN, **style.HOLLOW, "linestyle": ":"}),
    "train, avg eval": Curve("train", "error_mc", TRAIN),
    "test, 1 shot eval": Curve("test", "error_1", {**TEST, **style.HOLLOW, "linestyle": "--"}),
    "test, avg eval": Curve("test", "error_mc", TEST),
}
INFORMATION: dict[str, Look] = {"train": {**TRAIN, **style.HOLLOW}, "test": TEST}
PAPER: Look = {"color": "black", "linestyle": "none", "zorder": 3}
PUBLISHED: dict[str, tuple[str, Look]] = {
    "paper, 1 shot eval": ("error_1", {**PAPER, **style.HOLLOW, "marker": "D"}),
    "paper, avg eval": ("error_mc", {**PAPER, "marker": "*", "markersize": 5}),
}


def draw(k256: Source, k2: Source) -> Files:
    """Draw Figure 1 from its experiments, whose scales may differ."""
    drawn = figure1(k256.found["figure1"], k2.found["figure1b"])
    return style.files("figure1", *drawn, scale=scale_text(k256.scale, k2.scale))


DRAWING = Drawing("Figure 1", experiments=("figure1", "figure1b"), draw=draw, own_scales=True)


def scale_text(k256: str, k2: str) -> str:
    """The scale of the figure, or those of its panels."""
    return k256 if k256 == k2 else f"{k256} (a, c, d), {k2} (b)"


@in_style
def figure1(k256: list[StoredRun], k2: list[StoredRun]) -> tuple[Figure, pd.DataFrame]:
    """Errors, I(Z,X) and I(Z,Y) as beta varies: (a), (c), (d) from `k256`, (b) from `k2`.

    Lines are means over the seeds, bands reach from the lowest seed to the highest. A zero stands
    after a break of the log axis. Beyond the paper: its published errors, the best beta (smallest
    mean test error_mc), log2 of the number of classes, the bits that name one, and the epochs.

    Returns:
      The figure and what it plots. `x` and `y` are what `x_name` and `y_name` say: beta, errors as
      fractions of the images, or bits. `y_low` and `y_high` bound the band. `epochs` is how long
      its runs were trained.

    Raises:
      RunError: runs that do not belong in one panel, or a beta that lacks a seed of the others.
    """
    runs.require_panel(k256, runs.K256)
    runs.require_panel(k2, runs.K2)
    measured, bits = measurements(k256), math.log2(runs.data_info(k256[0]).classes)
    of_k256, of_k2 = (stored[0].record["config"]["epochs"] for stored in (k256, k2))
    epochs = {"a": of_k256, "b": of_k2, "c": of_k256, "d": of_k256}
    figure = Figure(figsize=(style.WIDTH, 4.8))
    (a, b), (c, d) = figure.subplots(2, 2)
    plotted = {
        "a": draw_errors(a, k256, title=f"(a) $K = 256$, {of_k256} epochs"),
        "b": draw_errors(b, k2, title=f"(b) $K = 2$, full covariance, {of_k2} epochs"),
        "c": draw_plane(c, measured, bits, title=f"(c) $K = 256$, {of_k256} epochs"),
        "d": draw_rate(d, measured, bits, title=f"(d) $K = 256$, {of_k256} epochs"),
    }
    lines, labels = b.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=3)
    style.lay_out(figure)
    table = pd.concat(plotted, names=["panel", "curve", "row"]).reset_index()
    ours = table["seeds"].notna()
    table["epochs"] = table["panel"].map(epochs).where(ours)
    return figure, table[[*style.COLUMNS, "epochs"]].astype({"seeds": "Int64", "epochs": "Int64"})


def draw_errors(axes: Axes, stored: list[StoredRun], *, title: str) -> pd.DataFrame:
    """Draw panel (a) or (b), error against beta; returns what it plots."""
    measured, config = measurements(stored), stored[0].record["config"]
    curves = {
        label: style.curve(measured.loc[[images]], x="beta", y=quantity)
        for label, (images, quantity, _) in ERRORS.items()
    }
    points = published(config)
    average = curves["test, avg eval"]
    best = average.loc[[average["y"].idxmin()]]
    plotted = pd.concat([*curves.values(), *points.values()])
    style.log_axis(axes, "x", plotted["x"])
    style.log_axis(axes, "y", [*plotted["y"], *plotted["y_low"].dropna(), 1], label=style.percent)
    for label, points_of_curve in curves.items():
        style.draw_curve(axes, points_of_curve, label, ERRORS[label].look)
    for label, table in points.items():
        axes.plot(table["x"], table["y"], label=label, **PUBLISHED[label][1])
    best_beta = best["beta"].item()
    line = axes.axvline(best_beta, **style.REFERENCE)
    axes.set(title=title, xlabel=r"$\beta$", ylabel="error rate")
    axes.legend(
        [line],
        [rf"best $\beta =$ {style.in_mathtext(best_beta)}"],
        title=legend_note(measured, config),
        alignment="left",
    )
    return pd.concat({**curves, **points, "best beta": best})


def draw_plane(axes: Axes, measured: pd.DataFrame, bits: float, *, title: str) -> pd.DataFrame:
    """Draw panel (c), I(Z,Y) against I(Z,X); returns what it plots."""
    style.log_axis(axes, "x", [*measured["izx_upper_bits"], bits])
    plotted = draw_information(axes, measured, bits, x="izx_upper_bits", y="izy_lower_bits")
    axes.axvline(bits, **style.REFERENCE)
    axes.set(
        title=title,
        xlabel=r"$I(Z,X)$ at most, bits ($\leftarrow$ larger $\beta$)",
        ylabel="$I(Z,Y)$ at least, bits",
    )
    axes.legend(loc="lower right")
    return plotted


def draw_rate(axes: Axes, measured: pd.DataFrame, bits: float, *, title: str) -> pd.DataFrame:
    """Draw panel (d), I(Z,X) against beta; returns what it plots."""
    style.log_axis(axes, "x", measured["beta"])
    style.log_axis(axes, "y", [*measured["izx_upper_bits"], bits])
    plotted = draw_information(axes, measured, bits, x="beta", y="izx_upper_bits")
    axes.set(title=title, xlabel=r"$\beta$", ylabel="$I(Z,X)$ at most, bits")
    axes.legend(loc="lower left")
    return plotted


def draw_information(
    axes: Axes, measured: pd.DataFrame, bits: float, *, x: str, y: str
) -> pd.DataFrame:
    """Draw a curve for the train and the test images, and a line at the bits that name a class."""
    classes = round(2**bits)
    curves = {images: style.curve(measured.loc[[images]], x=x, y=y) for images in INFORMATION}
    for images, plotted in curves.items():
        style.draw_curve(axes, plotted, images, INFORMATION[images])
    axes.axhline(bits, label=rf"$\log_2 {classes}$ bits", **style.REFERENCE)
    return pd.concat({**curves, f"log2({classes})": pd.DataFrame([{"y_name": y, "y": bits}])})


def measurements(stored: list[StoredRun]) -> pd.DataFrame:
    """A row per set of images, the index, and run: beta, seed and the quantities of the record."""
    rows = [
        {"images": images, **{key: r["config"][key] for key in ("beta", "seed")}, **r[images]}
        for _, r in stored
        for images in ("train", "test")
    ]
    return pd.DataFrame(rows).set_index("images")


def published(config: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """The points that the paper prints for a panel of errors; none but on MNIST."""
    if config["data"]["name"] != "mnist":
        return {}
    if config["K"] == 256:
        errors = {"error_mc": {paper.BEST_BETA: paper.TABLE_1["vib"]}}
    else:
        errors = {
            "error_mc": {beta: error_mc for beta, (error_mc, _) in paper.FIGURE_2.items()},
            "error_1": {beta: error_1 for beta, (_, error_1) in paper.FIGURE_2.items()},
        }
    return {
        label: pd.DataFrame(
            [
                {"beta": beta, "x_name": "beta", "x": beta, "y_name": quantity, "y": error}
                for beta, error in errors[quantity].items()
            ]
        )
        for label, (quantity, _) in PUBLISHED.items()
        if quantity in errors
    }


def legend_note(measured: pd.DataFrame, config: dict[str, Any]) -> str:
    """How many samples the averages and how many seeds the lines and bands stand for."""
    seeds = measured["seed"].nunique()
    bands = f"mean and range of {seeds} seeds" if seeds > 1 else "one seed"
    return f"avg eval: {config['mc_samples']} samples\n{bands}"
