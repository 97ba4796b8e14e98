"""Figure 4: how large perturbations are, and what accuracy attacks leave, as beta varies."""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from vibx.report import attacked, style
from vibx.report.attacked import BASE, MEAN_MODE, VIB
from vibx.report.drawings import Drawing, Files, Source
from vibx.report.style import HOLLOW, Look, in_style
from vibx.store import RunError, StoredAttack

KAPPAS = 0.0, 1.0  # none, as the paper has it, and a lead of one logit


class Curves(NamedTuple):
    """A model's curves, one per mode of attack: what is drawn of the records, and how."""

    model: str
    quantity: str
    kappa: float
    label: str
    look: Look


# The colours differ in lightness too, and the lines and markers without them.
MODES: dict[str, Look] = {
    "targeted": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "untargeted": {"color": "#009E73", "linestyle": "--", "marker": "s"},
}
LARGE: Look = {**HOLLOW, "zorder": 2.5}
PALE: Look = {"color": "0.7", "markersize": 2, "linewidth": 0.7, "zorder": 1.5}
MARKS: Look = {**HOLLOW, "linestyle": "none", "markersize": 7}
DASHES: Look = {"marker": "", "linewidth": 0.8, "linestyle": (0, (6, 6)), "zorder": 1.5}
DOTS: Look = {**DASHES, "linestyle": (0, (1, 3))}
NORM_LOOKS: dict[str, tuple[str, Look]] = {
    "l0_8_bits": ("$L_0$, 8 bits", {"color": "#0072B2", "linestyle": "-", "marker": "o"}),
    "l0_visible": ("$L_0$, > 0.05", {**HOLLOW, "color": "#56B4E9", "ls": "--", "marker": "o"}),
    "l2": ("$L_2$", {"color": "#D55E00", "linestyle": "-.", "marker": "s"}),
    "linf": (r"$L_\infty$", {"color": "black", "linestyle": ":", "marker": "^"}),
}
PANELS = {
    r"(b) accuracy, $\kappa = 0$, re-evaluated": [
        Curves(VIB, "accuracy_recheck", 0, "VIB", {}),
        Curves(BASE, "accuracy_recheck", 0, "deterministic", DASHES),
        Curves(MEAN_MODE, "accuracy_recheck", 0, MEAN_MODE, MARKS),
    ],
    "(c) the same, audited": [
        Curves(VIB, "accuracy_seen", 0, r"$\kappa = 0$, as the attack saw it", {}),
        Curves(VIB, "accuracy_recheck", 1, r"$\kappa = 1$, re-evaluated", LARGE),
        Curves(VIB, "accuracy_recheck", 0, "VIB as in (b)", PALE),
        Curves(BASE, "accuracy_recheck", 1, "deterministic", DASHES),
    ],
    "(d) median $L_2$": [
        Curves(VIB, "l2_median", 0, r"$\kappa = 0$", {}),
        Curves(VIB, "l2_median", 1, r"$\kappa = 1$", LARGE),
        Curves(BASE, "l2_median", 0, r"deterministic, $\kappa = 0$", DOTS),
        Curves(BASE, "l2_median", 1, r"deterministic, $\kappa = 1$", DASHES),
    ],
}


def draw(source: Source) -> Files:
    """Draw Figure 4, (a) from Figure 3's images."""
    accuracy = source.found["figure4"] + source.found["mean_mode"]
    return style.files("figure4", *figure4(source.found["figure3"], accuracy), scale=source.scale)


DRAWING = Drawing(
    "Figure 4",
    experiments=("figure3", "figure4", "mean_mode"),
    draw=draw,
    attacked=("table1", "figure1"),
)


@in_style
def figure4(
    targeted: list[StoredAttack], accuracy: list[StoredAttack]
) -> tuple[Figure, pd.DataFrame]:
    """How large perturbations of Figure 3's images are, and the accuracy on attacked images.

    (a) is from `targeted`; (b), (c) and (d) are from `accuracy`, whose attacks on VIB in mean
    mode, where there are any, are marked in (b). Lines are means over the seeds of model and
    attack, bands reach from the lowest to the highest.

    Returns:
      The figure and what it plots, as Figure 1's. `y` is relative to the deterministic model's
      mean or a number of images in (a), else a quantity of the attacks' records. Models other than
      VIB have no beta; `seeds` counts pairs of a model's and an attack's.

    Raises:
      RunError: attacks that do not belong in one panel, none on the deterministic model or on
        VIB, or a model that lacks a mode, a confidence or a seed of the others.
    """
    attacked.describe_targeted(targeted)
    described = attacked.describe(accuracy, vary={"seed", "mode", "confidence"})
    for mode, kappa in product(MODES, KAPPAS):
        if not ((described["mode"] == mode) & (described["confidence"] == kappa)).any():
            raise RunError(f"no {mode} attack with confidence={kappa:g}")
    measured = described.join(pd.DataFrame([attack.record for attack in accuracy]))
    figure = Figure(figsize=(style.WIDTH, 5.4))
    (a, b), (c, d) = figure.subplots(2, 2)
    plotted = [draw_norms(a, targeted).assign(panel="a")]
    for axes, letter, (title, panel) in zip((b, c, d), "bcd", PANELS.items(), strict=True):
        plotted.append(draw_panel(axes, measured, title, panel).assign(panel=letter))
    for axes in (b, c):
        axes.set(ylim=(-0.05, 1.05), yticks=np.linspace(0, 1, 6), ylabel="accuracy")
        axes.yaxis.set_major_formatter(lambda tick, _: style.percent(round(tick, 1)))
    d.set_ylabel("$L_2$, pixels of range 1")
    n = len(described[attacked.SEEDS].drop_duplicates())
    executions = f"mean and range of {n} executions" if n > 1 else "one execution"
    figure.legend(
        [Line2D([], [], **look) for look in MODES.values()],
        [f"{mode} attacks" for mode in MODES],
        loc="outside lower center",
        ncols=2,
        title=f"(b), (c), (d): {measured['n'].iloc[0]} test images, {executions}; "
        "re-evaluated: under independent noise",
    )
    style.lay_out(figure)
    table = pd.concat(plotted, ignore_index=True)
    return figure, table[style.COLUMNS].astype({"seeds": "Int64"})


def draw_norms(axes: Axes, targeted: list[StoredAttack]) -> pd.DataFrame:
    """Draw panel (a), norms relative to the deterministic model's; returns what it plots."""
    described = pd.DataFrame(map(attacked.description, targeted))
    measured = described.join(pd.DataFrame(map(attacked.mean_norms, targeted)))
    measured[attacked.NORMS] /= measured.loc[measured["model"] == BASE, attacked.NORMS].mean()
    curves = {
        (model, quantity): named_curve(rows, quantity, f"{model}, {quantity}")
        for model, rows in measured.groupby("model")
        for quantity in (*attacked.NORMS, "seen", "hold")
    }
    for quantity, (label, look) in NORM_LOOKS.items():
        style.draw_curve(axes, curves[VIB, quantity], label, look)
    axes.axhline(1, **style.REFERENCE)
    given, n = attacked.settings(targeted[0]), len(attacked.read(targeted[0])["index"])
    title = rf"(a) {n} images to class {given['target']}, $\kappa = {given['confidence']:g}$"
    label_panel(axes, title, measured, *axes.get_legend_handles_labels())
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    axes.set(ylim=(low, low + 1.3 * (high - low)), xlim=(left / 1.5, right * 1.5))
    axes.set_ylabel("norm relative to deterministic")
    small: Look = {"xycoords": axes.get_xaxis_transform(), "fontsize": style.SMALL}
    for height, quantity in ((0.88, "seen"), (0.8, "hold")):
        for point in curves[VIB, quantity].itertuples():
            axes.annotate(f"{point.y:.3g}", (point.x, height), ha="center", **small)
        axes.annotate(quantity, (1.02, height), xycoords="axes fraction", fontsize=style.SMALL)
    note = f"successes of {n}, seen and that hold:"
    axes.annotate(note, (0.02, 0.96), xycoords="axes fraction", fontsize=style.SMALL)
    return pd.concat(curves.values())


def draw_panel(axes: Axes, measured: pd.DataFrame, title: str, panel: list[Curves]) -> pd.DataFrame:
    """Draw panel (b), (c) or (d); returns what it plots, and the same of other models."""
    plotted, handles, labels = [], [], []
    for curves in panel:
        rows = measured[measured["confidence"] == curves.kappa]
        for (model, mode), of_curve in rows.groupby(["model", "mode"], observed=True):
            name = f"{model}, {mode}, kappa={curves.kappa:g}"
            plotted.append(named_curve(of_curve, curves.quantity, name))
            if model == curves.model:
                draw_mode(axes, plotted[-1], name, str(mode), curves.look)
        if curves.model in list(rows["model"]):
            handles.append(tuple(Line2D([], [], **m | curves.look) for m in MODES.values()))
            labels.append(curves.label)
    label_panel(axes, title, measured, handles, labels)
    return pd.concat(plotted).drop_duplicates()


def draw_mode(axes: Axes, plotted: pd.DataFrame, name: str, mode: str, look: Look) -> None:
    """Draw a mode's curve, a level line where there is no beta."""
    look = MODES[mode] | look
    if plotted["beta"].notna().all():
        style.draw_curve(axes, plotted, name, look)
        return
    _, dashes = look["linestyle"]
    shift = sum(dashes) / 2 * (mode == "targeted")  # equal lines are both seen
    axes.axhline(plotted["y"].item(), label=name, **look | {"linestyle": (shift, dashes)})


def named_curve(measured: pd.DataFrame, quantity: str, name: str) -> pd.DataFrame:
    """A quantity over beta, mean and range over the seeds, with the curve's name."""
    return style.curve(measured, x="beta", y=quantity).assign(curve=name)


def label_panel(
    axes: Axes, title: str, measured: pd.DataFrame, handles: list[Any], labels: list[Any]
) -> None:
    """Make the axis of beta, and put the title and a legend above, where no data are."""
    style.log_axis(axes, "x", measured["beta"].dropna())
    axes.set_xlabel(r"$\beta$")
    axes.set_title(title, pad=26)
    axes.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        handler_map={tuple: HandlerTuple(ndivide=None)},
    )
