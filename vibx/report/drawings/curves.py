"""Accuracy against the budget of attacks, and in the worst case over them."""

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vibx.report import attacked, runs, style
from vibx.report.drawings import Drawing, Files, Source
from vibx.report.style import Look, in_style
from vibx.store import RunError, StoredAttack

WORST, KNOWN, SHARE = "worst case", "knows the noise", "share of answers"
BEFORE = 0.0  # the budget of no attack
NORMS = {"l2": r"$L_2$", "linf": r"$L_\infty$"}
OWN = {"epsilon", "noise_samples", "seed"}  # keys in which a panel's attacks differ
# The colours differ in lightness too, and the markers without them.
MODELS: list[Look] = [
    {"color": "black", "marker": "^"},
    {"color": "#56B4E9", "marker": "o"},
    {"color": "#D55E00", "marker": "s"},
    {"color": "#0072B2", "marker": "D"},
    {"color": "#009E73", "marker": "v"},
]
THIN: Look = {"linewidth": 0.5, "marker": "", "alpha": 0.7}
DASHED: Look = {"linestyle": "--", "linewidth": 0.8, **style.HOLLOW}


def draw(source: Source) -> Files:
    """Draw the curves of both norms."""
    panels = [source.found[f"curves_{norm}"] for norm in NORMS]
    return style.files("curves", *curves(*panels), scale=source.scale)


DRAWING = Drawing(
    "Curves",
    experiments=("curves_l2", "curves_linf"),
    draw=draw,
    attacked=("table1", "robustness"),
)


@in_style
def curves(l2: list[StoredAttack], linf: list[StoredAttack]) -> tuple[Figure, pd.DataFrame]:
    """Accuracy of each model against the budgets of two norms.

    An image counts as right where most of its answers are under independent noise; in the worst
    case where they are after each attack of the budget. An attack that knows the noise is also
    drawn as it saw itself: with that noise in the answer. Lines are means over the seeds of model
    and attack, bands reach from the lowest to the highest.

    Returns:
      The figure and what it plots, as Figure 1's, and the worst case over attacks of the mean
      share of right answers, which is not drawn. x is a budget, 0 before any attack.

    Raises:
      RunError: attacks that do not belong in one panel, or a model that lacks one.
    """
    figure = Figure(figsize=(style.WIDTH, 2.9))
    plotted = []
    pair = zip(figure.subplots(1, 2, sharey=True), "ab", NORMS, (l2, linf), strict=True)
    for axes, letter, norm, attacks in pair:
        table = points(attacks, norm=norm)
        draw_panel(axes, table)
        axes.set(title=f"({letter}) {NORMS[norm]}", xlabel="budget, pixels of range 1")
        plotted.append(table.assign(panel=letter))
    first = figure.axes[0]
    first.set(ylim=(-0.05, 1.05), yticks=np.linspace(0, 1, 6), ylabel="accuracy")
    first.yaxis.set_major_formatter(lambda tick, _: style.percent(round(tick, 1)))
    table = pd.concat(plotted, ignore_index=True)
    label(figure, list(table["model"].unique()), n=l2[0].record["n"])
    style.lay_out(figure)
    return figure, table[style.COLUMNS].astype({"seeds": "Int64"})


def points(attacks: list[StoredAttack], *, norm: str) -> pd.DataFrame:
    """What a panel plots: the points of every model's curves, with the model and the kind."""
    measured = describe(attacks, norm=norm)
    tables = []
    for (model, kind), rows in measured.groupby(["model", "kind"], sort=False):
        grouped = rows.rename(columns={"budget": "x"}).groupby("x")["accuracy"]
        tables.append(
            pd.DataFrame(
                {
                    "model": model,
                    "kind": kind,
                    "curve": f"{model}, {kind}",
                    "beta": rows["beta"].iloc[0],
                    "x_name": f"{norm} budget",
                    "y_name": "share_recheck" if kind == SHARE else "accuracy",
                    "y": grouped.mean(),
                    "y_low": grouped.min(),
                    "y_high": grouped.max(),
                    "seeds": grouped.size(),
                }
            ).reset_index()
        )
    return pd.concat(tables, ignore_index=True)


def describe(attacks: list[StoredAttack], *, norm: str) -> pd.DataFrame:
    """A row per model, seeds, budget and kind of attack, or worst case, with its accuracy."""
    require_one_panel(attacks, norm=norm)
    cells: dict[tuple[Any, ...], list[StoredAttack]] = {}
    for attack in attacks:
        config, given = attack.run.record["config"], attacked.settings(attack)
        model = runs.model_name(config), config["beta"], config["seed"], given["seed"]
        cells.setdefault((*model, given["epsilon"]), []).append(attack)
    require_complete(cells)
    rows = []
    for (*of_model, budget), those in cells.items():
        accuracies = [(budget, kind, value) for kind, value in of_budget(those).items()]
        before = share_right(those[0], "votes_before")
        start = {WORST: np.mean(before >= 0.5), SHARE: before.mean()}
        accuracies += [(BEFORE, kind, start.get(kind, start[WORST])) for _, kind, _ in accuracies]
        rows += [(*of_model, *accuracy) for accuracy in accuracies]
    columns = ["model", "beta", "seed", "attack_seed", "budget", "kind", "accuracy"]
    table = pd.DataFrame(rows, columns=columns).astype({"beta": float})
    return table.drop_duplicates(["model", "seed", "attack_seed", "budget", "kind"])


def of_budget(attacks: list[StoredAttack]) -> dict[str, float]:
    """The accuracy that each attack with a budget leaves of a model, and the worst case.

    The same answers choose an image's worst attack and score it: of a noisy model too low, here by
    up to 1.5 points.
    """
    shares = {kind_of(attack): share_right(attack, "votes") for attack in attacks}
    found = {kind: float(np.mean(share >= 0.5)) for kind, share in shares.items()}
    worst = np.min(list(shares.values()), axis=0)
    found |= {WORST: float(np.mean(worst >= 0.5)), SHARE: float(worst.mean())}
    for attack in attacks:
        if attack.record["accuracy_seen"] is not None:
            found[KNOWN] = attack.record["accuracy_seen"]
    return found


def kind_of(attack: StoredAttack) -> str:
    """An attack by what it knows of the noise."""
    samples = attacked.settings(attack)["noise_samples"]
    return f"{samples} noise samples" if samples else "known noise, re-evaluated"


def share_right(attack: StoredAttack, votes: str) -> npt.NDArray[np.float64]:
    """The share of right answers to each image, under independent noise."""
    arrays = attacked.read(attack)
    right = arrays[votes][np.arange(len(arrays["label"])), arrays["label"]]
    return right / arrays[votes].sum(axis=1)


def require_one_panel(attacks: list[StoredAttack], *, norm: str) -> None:
    """Refuse no attacks, or attacks that differ in more than they should."""
    if not attacks:
        raise RunError(f"no attack with a budget in {norm}")
    attacked.require_same(attacks, vary=OWN)
    if attacked.settings(attacks[0])["norm"] != norm:
        raise RunError(f"{attacks[0].directory}: not an attack with a budget in {norm}")


def require_complete(cells: dict[tuple[Any, ...], list[StoredAttack]]) -> None:
    """Refuse a model that lacks a budget, or an attack with it, that another has."""
    of_model: dict[tuple[Any, ...], set[tuple[float, str]]] = {}
    for (*model, budget), those in cells.items():
        of_model.setdefault(tuple(model), set()).update((budget, kind_of(a)) for a in those)
    kinds = {kind for found in of_model.values() for _, kind in found}
    budgets = {budget for found in of_model.values() for budget, _ in found}
    for (name, _, seed, attack_seed), found in of_model.items():
        if missing := set(product(budgets, kinds)) - found:
            budget, kind = min(missing)
            raise RunError(
                f"{name}, model seed {seed}, lacks what another has: the attack with "
                f"epsilon={budget:g}, {kind}, seed={attack_seed}"
            )


def draw_panel(axes: Axes, table: pd.DataFrame) -> None:
    """Draw every model's curves: thick the worst case, thin each attack, dashed what it saw."""
    shown = table[table["kind"] != SHARE]
    for model_look, (_, of_model) in zip(MODELS, shown.groupby("model", sort=False), strict=False):
        for kind, rows in of_model.groupby("kind", sort=False):
            look = model_look | {WORST: {}, KNOWN: DASHED}.get(str(kind), THIN)
            axes.plot(rows["x"], rows["y"], label=rows["curve"].iloc[0], **look)
            if kind == WORST and (rows["seeds"] > 1).any():
                band = {"color": look["color"], "alpha": 0.25, "linewidth": 0}
                axes.fill_between(rows["x"], rows["y_low"], rows["y_high"], **band)


def label(figure: Figure, models: list[str], *, n: int) -> None:
    """Put the models, and what the kinds of lines are, under the panels."""
    kinds = {
        "worst case over attacks": {"linewidth": 1},
        "single attacks": THIN,
        "with the noise that the attack knows": DASHED | {"marker": "o"},
    }
    looks = [*MODELS[: len(models)], *({"color": "0.4", **look} for look in kinds.values())]
    figure.legend(
        [Line2D([], [], **look) for look in looks],
        [*models, *kinds],
        loc="outside lower center",
        ncols=4,
        title=f"{n} test images; right: most answers are, under independent noise",
    )
