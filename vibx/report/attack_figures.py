"""Figures 3 and 4, drawn from attacks on finished runs, and the numbers that they show.

What an attack saw and what holds are kept apart: answers counted here are a model's to attacked
images under new noise, independent of the attack's. Imports no jax.
"""

from collections.abc import Hashable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from vibx import store
from vibx.report import figures
from vibx.report.figures import HOLLOW, SMALL, WIDTH, different_keys, in_style
from vibx.robustness.config import MODES
from vibx.store import RunError, StoredAttack

Arrays = dict[str, npt.NDArray[Any]]
Look = dict[str, Any]

BASE, VIB, MEAN_MODE = "deterministic", "VIB", "VIB in mean mode"
MODELS = {"maximum_likelihood": BASE, "dropout": "dropout", "vib": VIB}
OF_MODEL = {"objective", "bottleneck", "marginal"}  # in which different models differ
MODEL = ["model", "beta"]
SEEDS = ["seed", "attack_seed"]
CELL = ["mode", "confidence", *SEEDS]  # a model's attacks
KAPPAS = 0.0, 1.0  # none, as the paper has it, and a lead of one logit
NORMS = ["l0_8_bits", "l0_visible", "l2", "linf"]


class Curves(NamedTuple):
    """A model's curves, one per mode of attack: what is drawn of the records, and how."""

    model: str
    quantity: str
    kappa: float
    label: str
    look: Look


# What most answers to an attacked image are, and its border. Here and below the colours are the
# paper's; they differ in lightness too, and the lines and markers without them.
OUTCOMES: dict[str, tuple[str, Look]] = {
    "target": ("the target, {target}", {"color": "#d7191c", "linestyle": "-"}),
    "true": ("the true class", {"color": "#4dc94d", "linestyle": (0, (2.5, 1.2))}),
    "other": ("another class", {"color": "#4b1d91", "linestyle": (0, (0.9, 0.9))}),
}
BORDER: Look = {"fill": False, "linewidth": 1.8}
UNDONE: Look = {"color": "black", "markerfacecolor": "white", "marker": "o", "linestyle": "none"}
MODE_LOOKS: dict[str, Look] = {
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
    r"(b) accuracy, $\kappa = 0$, under new noise": [
        Curves(VIB, "accuracy_recheck", 0, "VIB", {}),
        Curves(BASE, "accuracy_recheck", 0, "deterministic", DASHES),
        Curves(MEAN_MODE, "accuracy_recheck", 0, MEAN_MODE, MARKS),
    ],
    "(c) the same, audited": [
        Curves(VIB, "accuracy_seen", 0, r"$\kappa = 0$, as the attack saw it", {}),
        Curves(VIB, "accuracy_recheck", 1, r"$\kappa = 1$, under new noise", LARGE),
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


@in_style
def figure3(zeros: list[StoredAttack]) -> tuple[Figure, pd.DataFrame]:
    """A row per image: the original, and what attacks on each model make of it.

    Borders say what most of the model's answers are under new noise; a circle marks an image that
    reached its target when the attack looked, and does not. Of several seeds the first is shown.

    Returns:
      The figure and its numbers: per model and image the `outcome` (a key of `OUTCOMES`), whether
      the attack saw a success, the share of the answers that are its target, and the norms of the
      perturbation in pixels of range 1.

    Raises:
      RunError: attacks that do not belong in one figure, none on the deterministic model or on
        VIB, or a model that lacks a seed of the others.
    """
    of = check_zeros(zeros).sort_values([*MODEL, *SEEDS]).drop_duplicates(MODEL)
    found = [read(zeros[row]) for row in of.index]
    originals, indices = found[0]["original"], found[0]["index"]
    figure = Figure(figsize=(WIDTH, 0.7 + WIDTH * len(indices) / (len(found) + 1.6)))
    grid = figure.subplots(len(indices), len(found) + 1, squeeze=False)
    figure.supylabel("index of the test image", fontsize=SMALL)
    for axes, original, index in zip(grid[:, 0], originals, indices, strict=True):
        draw_image(axes, original / 255)
        axes.set_ylabel(str(index), fontsize=SMALL, rotation=0, ha="right", va="center")
    heads = ["original", *map(heading, of["model"], of["beta"])]
    for axes, text in zip(grid[0], heads, strict=True):
        axes.set_title(text, fontsize=SMALL, linespacing=1.5)
    for column, arrays in zip(grid.T[1:], found, strict=True):
        draw_column(column, arrays)
    explain_borders(figure, settings(zeros[0]))
    figures.lay_out(figure)
    return figure, pd.concat(map(image_numbers, of.to_dict("records"), found), ignore_index=True)


@in_style
def figure4(zeros: list[StoredAttack], accuracy: list[StoredAttack]) -> tuple[Figure, pd.DataFrame]:
    """How large perturbations of Figure 3's images are, and the accuracy on attacked images.

    (a) is from `zeros`; (b), (c) and (d) are from `accuracy`, whose attacks on VIB in mean mode,
    where there are any, are marked in (b). Lines are means over the seeds of model and attack,
    bands reach from the lowest to the highest.

    Returns:
      The figure and its numbers, as Figure 1's. `y` is relative to the deterministic model's mean
      or a number of images in (a), else a quantity of the attacks' records. Models other than VIB
      have no beta; `seeds` counts pairs of a model's and an attack's.

    Raises:
      RunError: attacks that do not belong in one panel, none on the deterministic model or on
        VIB, or a model that lacks a mode, a confidence or a seed of the others.
    """
    check_zeros(zeros)
    of = check(accuracy, vary={"seed", "mode", "confidence"})
    for mode, kappa in product(MODES, KAPPAS):
        if not ((of["mode"] == mode) & (of["confidence"] == kappa)).any():
            raise RunError(f"no {mode} attack with confidence={kappa:g}")
    measured = of.join(pd.DataFrame([attack.record for attack in accuracy]))
    figure = Figure(figsize=(WIDTH, 5.4))
    (a, b), (c, d) = figure.subplots(2, 2)
    tables = [draw_norms(a, zeros).assign(panel="a")]
    for axes, letter, (title, panel) in zip((b, c, d), "bcd", PANELS.items(), strict=True):
        tables.append(draw_curves(axes, measured, title, panel).assign(panel=letter))
    for axes in (b, c):
        axes.set(ylim=(-0.05, 1.05), yticks=np.linspace(0, 1, 6), ylabel="accuracy")
        axes.yaxis.set_major_formatter(lambda tick, _: figures.percent(round(tick, 1)))
    d.set_ylabel("$L_2$, pixels of range 1")
    n = len(of[SEEDS].drop_duplicates())
    executions = f"mean and range of {n} executions" if n > 1 else "one execution"
    figure.legend(
        [Line2D([], [], **look) for look in MODE_LOOKS.values()],
        [f"{mode} attacks" for mode in MODE_LOOKS],
        loc="outside lower center",
        ncols=2,
        title=f"(b), (c), (d): {measured['n'].iloc[0]} test images, {executions}",
    )
    figures.lay_out(figure)
    table = pd.concat(tables, ignore_index=True)
    return figure, table[figures.COLUMNS].astype({"seeds": "Int64"})


def read(attack: StoredAttack) -> Arrays:
    """What the attack found, image by image."""
    return store.read_arrays(attack.directory / store.ADVERSARIAL)


# Which attacks belong together


def settings(attack: StoredAttack) -> dict[str, Any]:
    """The attack's configuration, flat."""
    given = attack.record["attack"]
    return {**given, **given["attack"], "attack": given["attack"]["name"]}


def described(attack: StoredAttack) -> dict[str, Any]:
    """The attacked model with its beta, NaN but for VIB, both seeds, mode and confidence."""
    config, given = attack.run.record["config"], settings(attack)
    objective, beta = config["objective"]["name"], config["beta"]
    if objective not in MODELS:
        raise RunError(f"{attack.run.record['run_id']}: no figure has objective={objective}")
    in_mean_mode = objective == "vib" and given["samples"] is None
    return {
        "model": MEAN_MODE if in_mean_mode else MODELS[objective],
        "beta": np.nan if beta is None else beta,
        "seed": config["seed"],
        "attack_seed": given["seed"],
        "mode": given["mode"],
        "confidence": given["confidence"],
    }


def check_zeros(zeros: list[StoredAttack]) -> pd.DataFrame:
    """Describe the attacks of Figures 3 and 4(a), as `check`: they all have the same target."""
    of = check(zeros, vary={"seed"})
    given = settings(zeros[0])
    if given["attack"] != "carlini_wagner_l2" or given["target"] is None:
        raise RunError("Figures 3 and 4(a) need carlini_wagner_l2 with the same target for all")
    return of


def check(attacks: list[StoredAttack], *, vary: set[str]) -> pd.DataFrame:
    """Describe a panel's attacks, a row each; refuse those that do not belong in one.

    They differ in the model and the settings `vary` alone, and leave no gap. Those in mean mode
    are beside others, perhaps on fewer models.
    """
    of = pd.DataFrame(map(described, attacks), columns=[*MODEL, *CELL])
    of["model"] = pd.Categorical(of["model"], [*MODELS.values(), MEAN_MODE], ordered=True)
    if BASE not in list(of["model"]):
        raise RunError("no attack on a deterministic model (objective=maximum_likelihood)")
    if not (of.loc[of["model"] == VIB, "beta"] > 0).any():
        raise RunError("no attack on a VIB model with beta > 0")
    mean_mode = of["model"] == MEAN_MODE
    sampled = [attacks[row] for row in of.index[~mean_mode]]
    check_alike(sampled, vary=vary)
    check_alike([sampled[0], *attacks], vary=vary | {"samples"})
    check_complete(of[~mean_mode])
    check_complete(of[mean_mode])
    return of


def check_alike(attacks: list[StoredAttack], *, vary: set[str]) -> None:
    """Refuse attacks whose settings, or whose models' configurations, differ in other keys."""
    first = attacks[0]
    of_objective: dict[str, store.Record] = {}
    for attack in attacks:
        config = attack.run.record["config"]
        alike = of_objective.setdefault(config["objective"]["name"], config)
        differ = different_keys(config, first.run.record["config"]) - OF_MODEL
        differ |= different_keys(config, alike)
        differ -= {"beta", "seed"}
        differ |= different_keys(settings(attack), settings(first)) - vary
        if differ:
            raise RunError(
                f"attacks on {attack.run.record['run_id']} and {first.run.record['run_id']} "
                f"differ in {', '.join(sorted(differ))}"
            )


def check_complete(of: pd.DataFrame) -> None:
    """Refuse a model that lacks a mode, a confidence or seeds which another has."""
    cells = set(of[CELL].itertuples(index=False, name=None))
    for (model, beta), rows in of.groupby(MODEL, dropna=False, observed=True):
        missing = cells - set(rows[CELL].itertuples(index=False, name=None))
        if missing:
            mode, kappa, seed, attack_seed = min(missing)
            name = f"{model} beta={beta:g}" if model in (VIB, MEAN_MODE) else model
            raise RunError(
                f"{name}, model seed {seed}, lacks what another has: the attack with mode={mode}, "
                f"confidence={kappa:g}, seed={attack_seed}"
            )


# Figure 3


def outcomes(arrays: Arrays) -> npt.NDArray[np.str_]:
    """What most answers to each image are, keys of `OUTCOMES`; a tie is no success."""
    votes, every = arrays["votes"], np.arange(len(arrays["votes"]))
    most = votes == votes.max(axis=1, keepdims=True)
    at_target = most[every, arrays["target"]] & (most.sum(axis=1) == 1)
    return np.select([at_target, most[every, arrays["label"]]], ["target", "true"], "other")


def heading(model: str, beta: float) -> str:
    """The head of a model's column."""
    return model if np.isnan(beta) else f"{model}, $\\beta =$\n{figures.in_mathtext(beta)}"


def draw_image(axes: Axes, pixels: npt.NDArray[Any]) -> None:
    """Show an image without ticks."""
    axes.imshow(pixels.reshape(28, 28), cmap="gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_column(column: npt.NDArray[Any], arrays: Arrays) -> None:
    """Draw a model's attacked images in their borders."""
    names = outcomes(arrays)
    undone = arrays["success"] & (names != "target")
    for axes, image, name, marked in zip(column, arrays["adversarial"], names, undone, strict=True):
        draw_image(axes, image)
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
        [*labels, "new noise undid the attack's success"],
        loc="outside lower center",
        ncols=4,
        columnspacing=1.5,
        title=f"most of the model's {given['rechecks']} answers under new noise are",
    )


def image_numbers(of: dict[Hashable, Any], arrays: Arrays) -> pd.DataFrame:
    """What a column shows, a row per image."""
    votes, target = arrays["votes"], arrays["target"]
    return pd.DataFrame(
        {
            **{key: of[key] for key in (*MODEL, *SEEDS)},
            **{name: arrays[name] for name in ("index", "label", "target")},
            "outcome": outcomes(arrays),
            "seen": arrays["success"],
            "goal_share": votes[np.arange(len(votes)), target] / votes.sum(axis=1),
            **{name: arrays[name] for name in NORMS},
        }
    )


# Figure 4


def mean_norms(attack: StoredAttack) -> dict[str, float]:
    """Mean norms of the successes that the attack saw, how many they are, and how many hold."""
    arrays = read(attack)
    seen = arrays["success"]
    means = {name: arrays[name][seen].mean() if seen.any() else np.nan for name in NORMS}
    return {**means, "seen": seen.sum(), "hold": (outcomes(arrays) == "target").sum()}


def draw_norms(axes: Axes, zeros: list[StoredAttack]) -> pd.DataFrame:
    """Draw panel (a), norms relative to the deterministic model's; returns its numbers."""
    of = pd.DataFrame(map(described, zeros))
    measured = of.join(pd.DataFrame(map(mean_norms, zeros)))
    measured[NORMS] /= measured.loc[measured["model"] == BASE, NORMS].mean()
    drawn = {
        (model, quantity): over_seeds(rows, quantity, f"{model}, {quantity}")
        for model, rows in measured.groupby("model")
        for quantity in (*NORMS, "seen", "hold")
    }
    for quantity, (label, look) in NORM_LOOKS.items():
        figures.draw_curve(axes, drawn[VIB, quantity], label, look)
    axes.axhline(1, **figures.REFERENCE)
    given, n = settings(zeros[0]), len(read(zeros[0])["index"])
    title = rf"(a) {n} images to class {given['target']}, $\kappa = {given['confidence']:g}$"
    head(axes, title, measured, *axes.get_legend_handles_labels())
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    axes.set(ylim=(low, low + 1.3 * (high - low)), xlim=(left / 1.5, right * 1.5))
    axes.set_ylabel("norm relative to deterministic")
    small: Look = {"xycoords": axes.get_xaxis_transform(), "fontsize": SMALL}
    for height, quantity in ((0.88, "seen"), (0.8, "hold")):
        for point in drawn[VIB, quantity].itertuples():
            axes.annotate(f"{point.y:.3g}", (point.x, height), ha="center", **small)
        axes.annotate(quantity, (1.02, height), xycoords="axes fraction", fontsize=SMALL)
    note = f"successes of {n}, seen and that hold:"
    axes.annotate(note, (0.02, 0.96), xycoords="axes fraction", fontsize=SMALL)
    return pd.concat(drawn.values())


def draw_curves(
    axes: Axes, measured: pd.DataFrame, title: str, panel: list[Curves]
) -> pd.DataFrame:
    """Draw panel (b), (c) or (d); returns its numbers, and with them those of other models."""
    tables, handles, labels = [], [], []
    for curves in panel:
        rows = measured[measured["confidence"] == curves.kappa]
        for (model, mode), found in rows.groupby(["model", "mode"], observed=True):
            name = f"{model}, {mode}, kappa={curves.kappa:g}"
            tables.append(over_seeds(found, curves.quantity, name))
            if model == curves.model:
                draw_one(axes, tables[-1], name, str(mode), curves.look)
        if curves.model in list(rows["model"]):
            handles.append(tuple(Line2D([], [], **m | curves.look) for m in MODE_LOOKS.values()))
            labels.append(curves.label)
    head(axes, title, measured, handles, labels)
    return pd.concat(tables).drop_duplicates()


def draw_one(axes: Axes, numbers: pd.DataFrame, name: str, mode: str, look: Look) -> None:
    """Draw a mode's curve, a level line where there is no beta."""
    look = MODE_LOOKS[mode] | look
    if numbers["beta"].notna().all():
        figures.draw_curve(axes, numbers, name, look)
        return
    _, dashes = look["linestyle"]
    shift = sum(dashes) / 2 * MODES.index(mode)  # equal lines are both seen
    axes.axhline(numbers["y"].item(), label=name, **look | {"linestyle": (shift, dashes)})


def over_seeds(measured: pd.DataFrame, quantity: str, curve: str) -> pd.DataFrame:
    """A curve's points in the order of beta: mean and range over the seeds."""
    by_beta = measured.astype({quantity: float}).groupby("beta", dropna=False)
    columns = {
        "curve": curve,
        "x_name": "beta",
        "x": by_beta["beta"].first(),
        "y_name": quantity,
        "y": by_beta[quantity].mean(),
        "y_low": by_beta[quantity].min(),
        "y_high": by_beta[quantity].max(),
        "seeds": by_beta.size(),
    }
    return pd.DataFrame(columns).reset_index()


def head(
    axes: Axes, title: str, measured: pd.DataFrame, handles: list[Any], labels: list[Any]
) -> None:
    """Make the axis of beta, and put the title and a legend above, where no data are."""
    figures.log_axis(axes, "x", measured["beta"].dropna())
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
