"""Robustness: norms at equal expected success over beta, and what the early abort does to norms."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vibx.report import attacked, statistics, style, tables
from vibx.report.attacked import BASE, VIB
from vibx.report.drawings import Drawing, Files, Source
from vibx.report.drawings.figure4 import MODES, label_panel
from vibx.report.runs import scientific
from vibx.report.style import HOLLOW, Look, in_style
from vibx.store import RunError, StoredAttack

ABORTS = {"with": True, "without": False}
ABORT_LOOKS: dict[tuple[str, str], tuple[str, Look]] = {
    ("l2", "with"): (
        "$L_2$, early abort",
        {"color": "#D55E00", "linestyle": "-.", "marker": "s"},
    ),
    ("l2", "without"): (
        "$L_2$, none",
        {**HOLLOW, "color": "#D55E00", "linestyle": "-", "marker": "s"},
    ),
    ("linf", "with"): (
        r"$L_\infty$, early abort",
        {"color": "black", "linestyle": ":", "marker": "^"},
    ),
    ("linf", "without"): (
        r"$L_\infty$, none",
        {**HOLLOW, "color": "black", "linestyle": "--", "marker": "^"},
    ),
}
RATIOS = {"l0_8_bits": "L0", "l2": "L2", "linf": "Linf"}  # norms relative to the deterministic
ABORT_COLUMNS = ["iterations", "l2", *(f"{norm}_ratio" for norm in RATIOS), "seen", "hold"]


def draw(source: Source) -> Files:
    """Draw robustness.pdf and .png, its numbers as .csv and .md, the abort's apart."""
    attacks = source.found["figure4_expected"]
    expected = expected_table(attacks)
    zeros = source.found["early_abort"]
    abort = abort_table(zeros)
    text = [expected_text(expected, attacks, scale=source.scale), abort_text(abort, zeros)]
    return {
        **style.files("robustness", robustness(expected, abort), expected, scale=source.scale),
        **tables.files("robustness", csv=tables.csv(expected), md="\n".join(text)),
        **tables.files("robustness_abort", csv=tables.csv(abort)),
    }


DRAWING = Drawing(
    "Robustness",
    experiments=("table1", "robustness", "early_abort", "figure4_expected"),
    draw=draw,
    attacked=("table1", "robustness"),
)


# Numbers


def expected_table(attacks: list[StoredAttack]) -> pd.DataFrame:
    """A row per mode and model, VIB in the order of beta: norms at equal expected success.

    `l2_median` is over the images, failures infinite, then a mean over the seeds of model and
    attack, as all shares are; `ratio` is to the deterministic model's, with its interval. `seen`
    is by the attack's votes, `success` by as many answers under independent noise, and
    `goal_probability` the exact one of an answer of one sample of z, NaN where there is none.

    Raises:
      RunError: attacks without votes, or that do not belong together.
    """
    described = attacked.describe(attacks, vary={"seed", "mode"})
    if attacked.settings(attacks[0])["votes"] == 1:
        raise RunError("norms at equal expected success need attacks with attack.votes > 1")
    groups = described.groupby(["mode", *attacked.MODEL], dropna=False, observed=True)
    cells = {key: [attacks[row] for row in rows.index] for key, rows in groups}
    norms = {
        key: np.stack([attacked.norms_seen(attack, "l2", failure=np.inf) for attack in those])
        for key, those in cells.items()
    }
    base = {mode: values for (mode, model, _), values in norms.items() if model == BASE}
    table = []
    for (mode, model, beta), those in cells.items():
        values = norms[mode, model, beta]
        if model == BASE:  # to itself: its seeds and images are the same ones in every resample
            ratio = statistics.Ratio(1.0, statistics.Interval(1.0, 1.0))
        else:
            seed = statistics.BOOTSTRAP_SEED
            ratio = statistics.ratio_of_medians(values, to=base[mode], seed=seed)
        table.append(
            {
                "mode": mode,
                "model": model,
                "beta": beta,
                "images": values.shape[1],
                "seeds": len(those),
                "l2_median": np.median(values, axis=1).mean(),
                "ratio": ratio.value,
                "ratio_low": ratio.interval.low,
                "ratio_high": ratio.interval.high,
                "seen_percent": 100 * np.isfinite(values).mean(),
                "success_percent": percent(those, "goal_recheck"),
                "goal_probability_percent": percent(those, "goal_probability"),
            }
        )
    return pd.DataFrame(table)


def percent(attacks: list[StoredAttack], quantity: str) -> float:
    """The mean of a quantity of the records; NaN where one has none."""
    values = [attack.record.get(quantity) for attack in attacks]
    return 100 * float(np.mean([np.nan if value is None else value for value in values]))


def abort_table(attacks: list[StoredAttack]) -> pd.DataFrame:
    """A row per model, VIB in the order of beta: its attacks with and without early abort.

    Norms are means over the successes that the attack saw, as in Figure 4(a), and relative to the
    deterministic model's under the same attack; `iterations` a mean over the images; `hold` counts
    images, as `seen` does. All are means over the seeds.

    Raises:
      RunError: attacks that differ in more than the abort, or a model that lacks one of the two.
    """
    attacked.require_same(attacks, vary={"seed", "abort_early"})
    parts = []
    for name, abort in ABORTS.items():
        those = [a for a in attacks if attacked.settings(a)["abort_early"] == abort]
        measured = pd.DataFrame(map(attacked.mean_norms, those))
        measured["iterations"] = [attacked.read(a)["iterations"].mean() for a in those]
        described = attacked.describe_targeted(those).join(measured)
        groups = described.groupby(attacked.MODEL, dropna=False, observed=True)
        means = groups[[*measured.columns]].mean().astype(float)
        for norm in RATIOS:
            means[f"{norm}_ratio"] = means[norm] / means.xs(BASE, level="model")[norm].iloc[0]
        parts.append(means[ABORT_COLUMNS].add_suffix(f"_{name}"))
    if not parts[0].index.equals(parts[1].index):
        raise RunError("a model lacks its attack with early abort, or without")
    return pd.concat(parts, axis=1).reset_index()


# Figure


@in_style
def robustness(expected: pd.DataFrame, abort: pd.DataFrame) -> Figure:
    """What `expected_table` and `abort_table` say, over beta."""
    figure = Figure(figsize=(style.WIDTH, 2.9))
    left, right = figure.subplots(1, 2)
    draw_expected(left, expected)
    draw_abort(right, abort)
    first = expected.iloc[0]
    executions = f"{first['seeds']} executions" if first["seeds"] > 1 else "one execution"
    figure.supxlabel(
        f"(a): {first['images']} test images, {executions} of each model, 95% intervals; "
        "(b): Figure 3's images",
        fontsize=style.SMALL,
    )
    style.lay_out(figure)
    return figure


def draw_expected(axes: Axes, expected: pd.DataFrame) -> None:
    """Draw panel (a): median L2 at equal expected success, relative to the deterministic model."""
    of_vib = expected[expected["model"] == VIB]
    for mode, look in MODES.items():
        rows = of_vib[of_vib["mode"] == mode]
        interval = {f"y_{end}": rows[f"ratio_{end}"] for end in ("low", "high")}
        ratio = points(rows, "ratio").assign(**interval)
        style.draw_curve(axes, ratio, f"{mode} attacks", look, band=True)
    finish(axes, of_vib, "(a) at equal expected success")
    axes.set_ylabel("median $L_2$ relative to deterministic")


def draw_abort(axes: Axes, abort: pd.DataFrame) -> None:
    """Draw panel (b): Figure 4(a)'s norms, with and without early abort."""
    of_vib = abort[abort["model"] == VIB]
    for (norm, name), (label, look) in ABORT_LOOKS.items():
        style.draw_curve(axes, points(of_vib, f"{norm}_ratio_{name}"), label, look)
    finish(axes, of_vib, r"(b) $L_2$ and $L_\infty$ as Figure 4(a) counts")
    axes.set_ylabel("mean norm relative to deterministic")


def points(rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """A quantity over beta as `style.draw_curve` takes it, without a band."""
    y = dict.fromkeys(("y", "y_low", "y_high"), rows[quantity])
    return pd.DataFrame({"x": rows["beta"], **y, "seeds": 1})


def finish(axes: Axes, of_vib: pd.DataFrame, title: str) -> None:
    """Draw the deterministic model's line, the axis of beta, title and legend."""
    handles, labels = axes.get_legend_handles_labels()
    axes.axhline(1, **style.REFERENCE)
    label_panel(axes, title, of_vib, handles, labels)


# Text


def expected_text(expected: pd.DataFrame, attacks: list[StoredAttack], *, scale: str) -> str:
    """`expected_table` in Markdown."""
    given, first = attacked.settings(attacks[0]), expected.iloc[0]
    caption = (
        f"**L2 at equal expected success**, scale {scale}: {first['images']} test images, "
        f"{first['seeds']} execution(s) of each model. An iterate of the attack is a success where "
        f"{given['votes_needed']} of {given['votes']} independent answers are at the goal."
    )
    note = (
        "Median L2: over the images, mean over the executions. Ratio: of medians, to the "
        "deterministic model's, with 95% interval over images and seeds (bootstrap). Success: "
        "answers at the goal under independent noise. Exact: the probability that an answer of one "
        "sample of z is at the goal."
    )
    header = ["attack", "model", "beta", "median L2", "ratio", "success, %", "exact, %"]
    body = [
        [
            row["mode"],
            row["model"],
            beta_text(row["beta"]),
            tables.number(row["l2_median"]),
            ratio_text(row),
            tables.number(row["success_percent"]),
            tables.number(row["goal_probability_percent"]),
        ]
        for row in expected.to_dict("records")
    ]
    return tables.markdown(header, body, caption=caption, note=note)


def ratio_text(row: dict[Any, Any]) -> str:
    """A model's ratio with its interval; the deterministic model's is 1."""
    if row["model"] == BASE:
        return "1"
    return "{ratio:.3f} [{ratio_low:.3f}, {ratio_high:.3f}]".format_map(row)


def abort_text(abort: pd.DataFrame, zeros: list[StoredAttack]) -> str:
    """`abort_table` in Markdown."""
    given, n = attacked.settings(zeros[0]), len(attacked.read(zeros[0])["index"])
    caption = (
        f"**Figure 4(a) with and without early abort**: {n} images to class {given['target']}, "
        f"kappa = {given['confidence']:g}, mean norms of the successes that the attack saw."
    )
    names = {
        "iterations": "iterations",
        "l2": "L2",
        **{f"{norm}_ratio": f"{label}, relative" for norm, label in RATIOS.items()},
        "hold": "hold",
    }
    header = ["model", "beta"]
    header += [f"{label}, {name}" for label in names.values() for name in ABORTS]
    body = []
    for row in abort.to_dict("records"):
        body.append([row["model"], beta_text(row["beta"])])
        for quantity in names:
            digits = ".0f" if quantity in ("iterations", "hold") else ".2f"
            body[-1] += [f"{row[f'{quantity}_{name}']:{digits}}" for name in ABORTS]
    return tables.markdown(header, body, caption=caption)


def beta_text(beta: float) -> str:
    """A model's beta; a dash for one that has none."""
    return "-" if np.isnan(beta) else scientific(beta)
