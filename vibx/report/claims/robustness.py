"""Claims of section 4.2, Figures 3 and 4: what attacks do to VIB and to the deterministic model.

What the paper counts is not said: as the attack saw it, or of the images re-evaluated. Where they
differ, each has its row. That VIB needs much larger perturbations is asked at the paper's setting,
whose attack keeps the luckiest of a noisy model's answers, and at equal expected success.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from vibx import store
from vibx.files import Arrays
from vibx.report import attacked, statistics
from vibx.report.attacked import BASE, MEAN_MODE, VIB
from vibx.report.ledger import (
    Claim,
    Found,
    Measured,
    Needed,
    Range,
    mean_of_seeds,
    mean_over,
    worst,
)
from vibx.report.runs import error_of
from vibx.report.statistics import BOOTSTRAP_SEED, Interval
from vibx.store import StoredAttack

LARGE = 1e-3, 1e-2  # "reasonably large beta"
LARGEST = 1e-2
MUCH = 1.1  # times larger, at least
RECHECK, SEEN = "accuracy_recheck", "accuracy_seen"
MODES = "targeted", "untargeted"
EXPECTED = "figure4_expected"
AS_BETA_GROWS = (
    ("l0_8_bits", "L0", "falls", Range(high=1)),
    ("l2", "L2", "grows", Range(low=1)),
    ("linf", "Linf", "grows", Range(low=1)),
)

# Accuracies


def measurements(attacks: list[StoredAttack]) -> pd.DataFrame:
    """A row per attack that belongs in a panel: what it is on, and its record."""
    described = attacked.describe(attacks, vary={"seed", "mode", "confidence"})
    return described.join(pd.DataFrame([attack.record for attack in attacks]))


def mean_of(rows: pd.DataFrame, quantity: str) -> Measured:
    """A share of the attacked images: a mean over the model's seeds, each over the attack's."""
    if rows.empty:
        return Measured(math.nan, None, 0)
    values = rows.astype({quantity: float}).groupby("seed")[quantity].mean()
    return mean_over(values.to_numpy(), int(rows["n"].iloc[0]))


def of_vib(rows: pd.DataFrame, quantity: str, betas: Callable[[float], bool]) -> list[Measured]:
    """A share of the attacked images for each beta of VIB that is asked for, ascending."""
    chosen = rows[(rows["model"] == VIB) & rows["beta"].map(betas)]
    return [mean_of(of_beta, quantity) for _, of_beta in chosen.groupby("beta")]


def deterministic_accuracy(found: Found) -> Measured:
    """The deterministic model's accuracy on attacked images, the larger of both modes'."""
    rows = measurements(found["figure4"])
    base = rows[rows["model"] == BASE]
    accuracies = [mean_of(of_mode, RECHECK) for _, of_mode in base.groupby("mode")]
    return worst(accuracies, lambda accuracy: -accuracy.value)


def gain_in_accuracy(found: Found, quantity: str, betas: Callable[[float], bool]) -> Measured:
    """VIB's accuracy minus the deterministic model's, the smaller of both modes'.

    At the median beta: half of them have as much. Of an even number of them the lower one.
    """
    rows = measurements(found["figure4"])
    gains = []
    for _, of_mode in rows.groupby("mode"):
        base = mean_of(of_mode[of_mode["model"] == BASE], quantity)
        of_betas = [difference(vib, base) for vib in of_vib(of_mode, quantity, betas)]
        of_betas.sort(key=lambda gain: gain.value)
        gains.append(of_betas[(len(of_betas) - 1) // 2])
    return worst(gains, lambda gain: gain.value)


def untargeted_minus_targeted(found: Found) -> Measured:
    """The accuracy that untargeted attacks leave VIB minus that of targeted ones; over beta."""
    rows = measurements(found["figure4"])
    vib = rows[rows["model"] == VIB]
    return difference(*(mean_of(vib[vib["mode"] == mode], RECHECK) for mode in reversed(MODES)))


def smallest_beta_minus_zero(found: Found) -> Measured:
    """The accuracy at the smallest beta above 0 minus that at 0, where they differ most."""
    rows = measurements(found["figure4"])
    smallest = rows.loc[rows["beta"] > 0, "beta"].min()
    differences = []
    for _, of_mode in rows.groupby("mode"):
        zero, small = of_vib(of_mode, RECHECK, lambda beta: beta in (0, smallest))
        differences.append(difference(small, zero))
    return worst(differences, lambda gap: -abs(gap.value))


def mean_mode_minus_sampled(found: Found) -> Measured:
    """VIB's accuracy in mean mode minus that of the same model sampled, where they differ most."""
    rows = measurements(found["figure4"] + found["mean_mode"])
    differences = []
    for _, of_both in rows[rows["beta"].notna()].groupby(["mode", "beta"]):
        by_model = {model: of_both[of_both["model"] == model] for model in (MEAN_MODE, VIB)}
        if not by_model[MEAN_MODE].empty:
            mean, sampled = (mean_of(by_model[model], RECHECK) for model in (MEAN_MODE, VIB))
            differences.append(difference(mean, sampled))
    return worst(differences, lambda gap: -abs(gap.value))


def share_that_holds(found: Found) -> Measured:
    """Of the successes on VIB that attacks saw, the share of answers that hold, at the least."""
    rows = measurements(found["figure4"])
    rows["held"] = (
        rows["goal_recheck"] * rows["n"] / rows["successes_seen"].where(rows["successes_seen"] > 0)
    )
    rows["held"] = rows["held"].clip(upper=1)  # images that were wrong before are at a goal too
    rows["n"] = rows["successes_seen"]
    shares = [
        share
        for _, of_mode in rows.groupby("mode")
        for share in of_vib(of_mode.dropna(subset=["held"]), "held", lambda beta: True)
    ]
    return worst(shares, lambda share: share.value)


def difference(one: Measured, other: Measured) -> Measured:
    """A difference of shares: Newcombe's interval of one seed's, else from both intervals.

    Both take the images as not paired, which is too wide.
    """
    if one.interval is None or other.interval is None:
        return Measured(math.nan, None, 0)
    interval = statistics.of_difference(
        one.value, one.interval, minus=other.value, of=other.interval
    )
    value = one.value - other.value
    return Measured(value, interval, min(one.seeds, other.seeds), one.images)


def smallest_accuracy(found: Found) -> Measured:
    """The smallest accuracy of any attacked model on all test images as they are."""
    attacked_runs = [attack.run for attack in found["figure3"] + found["figure4"]]
    seeds = {run.record["config"]["seed"] for run in attacked_runs}
    return Measured(1 - max(error_of(run, "test") for run in attacked_runs), None, len(seeds))


# Successes


def outcomes(found: Found, chosen: Callable[[pd.Series], bool], seen: bool) -> Measured:
    """The share of Figure 3's images that reach the target: as seen, or of most answers."""
    attacks = found["figure3"]
    described = attacked.describe_targeted(attacks)
    described["reached"] = [float(np.mean(reached(attacked.read(a), seen))) for a in attacks]
    described["n"] = [len(attacked.read(attack)["index"]) for attack in attacks]
    rows = described[described.apply(chosen, axis=1)]
    return mean_of(rows, "reached")


def reached(arrays: Arrays, seen: bool) -> Any:
    """Whether each image reaches the target."""
    return arrays["success"] if seen else attacked.outcomes(arrays) == "target"


def is_base(row: pd.Series) -> bool:
    """Whether an attack is on a model without a beta: deterministic, or with dropout."""
    return math.isnan(row["beta"])


def is_large(row: pd.Series) -> bool:
    """Whether an attack is on VIB with a reasonably large beta."""
    return row["beta"] in LARGE


def failures(found: Found, seen: bool) -> Measured:
    """The share of Figure 3's images that do not reach the target on VIB with a large beta."""
    success = outcomes(found, is_large, seen)
    if success.interval is None:
        return success
    low, high = success.interval
    return success._replace(value=1 - success.value, interval=Interval(1 - high, 1 - low))


# Norms


def norms_of(
    attacks: list[StoredAttack], norm: str, *, failure: float
) -> dict[tuple[str, float], Any]:
    """Norms of the successes seen by model and beta, [seeds, images]; `failure` elsewhere."""
    found: dict[tuple[str, float], dict[tuple[int, int], Any]] = {}
    for attack in attacks:
        about = attacked.description(attack)
        beta = -1.0 if math.isnan(about["beta"]) else about["beta"]
        executions = found.setdefault((about["model"], beta), {})
        executions[about["seed"], about["attack_seed"]] = attacked.norms_seen(
            attack, norm, failure=failure
        )
    return {
        model: np.stack([executions[key] for key in sorted(executions)])
        for model, executions in found.items()
    }


def relative_norm(found: Found, norm: str, to_zero: bool) -> Measured:
    """A norm of Figure 3's perturbations of VIB relative to that at beta = 0, or to the base.

    Means over the successes that the attack saw; at the largest beta, or at the large one where it
    is smaller.
    """
    attacked.describe_targeted(found["figure3"])
    norms = norms_of(found["figure3"], norm, failure=math.nan)
    return of_norms(norms, to_zero, statistics.ratio_of_means)


def expected_norm(found: Found, norm: str, to_zero: bool) -> Measured:
    """The same of all classes at equal expected success: medians, a failure is infinite."""
    attacks = found[EXPECTED]
    attacked.describe(attacks, vary={"seed", "mode"})
    if not all(attacked.settings(attack)["votes"] > 1 for attack in attacks):
        raise store.RunError(f"{EXPECTED}: equal expected success needs attack.votes > 1")
    norms = norms_of(attacks, norm, failure=math.inf)
    return of_norms(norms, to_zero, statistics.ratio_of_medians)


def of_norms(
    norms: dict[tuple[str, float], Any], to_zero: bool, ratio: Callable[..., statistics.Ratio]
) -> Measured:
    """VIB's norms relative to those at beta = 0, or to the deterministic model's."""
    base = norms[VIB, 0.0] if to_zero else norms[BASE, -1.0]
    measured = []
    for beta in (LARGEST,) if to_zero else LARGE:
        values = norms[VIB, beta]
        found = ratio(values, to=base, seed=BOOTSTRAP_SEED)
        seeds = min(len(values), len(base))
        measured.append(Measured(found.value, found.interval, seeds, base.shape[1]))
    return worst(measured, lambda found: found.value)


def median_norm(found: Found, of: tuple[str, str], to: tuple[str, str]) -> Measured:
    """Median L2 of the successes seen on a model in a mode, relative to another's.

    Of VIB at the large beta where it is smaller. Without the attacked images, which not all records
    have, there is no interval over them.
    """
    rows = measurements(found["figure4"])
    rows["there"] = [(a.directory / store.ADVERSARIAL).exists() for a in found["figure4"]]
    base = rows[of_side(rows, *to)]
    vib = of[0] == VIB
    measured = []
    for beta in LARGE if vib else (math.nan,):
        side = rows[of_side(rows, *of) & (rows["beta"].eq(beta) | (not vib))]
        medians = [group.groupby("seed")["l2_median"].mean() for group in (side, base)]
        ratio = mean_of_seeds((medians[0] / medians[1]).dropna().to_numpy(float))
        if side["there"].all() and base["there"].all():
            values, others = (
                np.stack(
                    [
                        attacked.norms_seen(found["figure4"][row], "l2", failure=math.nan)
                        for row in group.index
                    ]
                )
                for group in (side, base)
            )
            found_ratio = statistics.ratio_of_medians(values, to=others, seed=BOOTSTRAP_SEED)
            ratio = Measured(*found_ratio, ratio.seeds)
        measured.append(ratio._replace(images=int(rows["n"].iloc[0])))
    return worst(measured, lambda ratio: ratio.value)


def of_side(rows: pd.DataFrame, model: str, mode: str) -> pd.Series:
    """Which attacks are on a model in a mode."""
    return (rows["model"] == model) & (rows["mode"] == mode)


# The claims


def accuracies(only: str = "attack.confidence=0") -> tuple[Needed, ...]:
    """Attacks of Figure 4(b)."""
    return (Needed("figure4", only),)


def any_beta(beta: float) -> bool:
    """Every beta above 0."""
    return beta > 0


def zero(beta: float) -> bool:
    """No rate at all."""
    return beta == 0


ZEROS = (Needed("figure3"),)
CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="targeted_needs_more",
        where="4.2.1",
        says="Targeted attacks need larger perturbations than untargeted ones.",
        decided_by="median L2 of targeted relative to untargeted attacks, deterministic model",
        unit="times",
        holds=Range(low=1.1),
        needs=accuracies(),
        measure=partial(median_norm, of=(BASE, "targeted"), to=(BASE, "untargeted")),
    ),
    Claim(
        name="evaluation_is_consistent",
        where="4.2.3",
        says="With 12 samples the adversary seldom gets lucky: what it sees as a success is one.",
        decided_by=(
            "answers at the goal, re-evaluated, of successes seen (kappa = 0), least over VIB"
        ),
        unit="%",
        holds=Range(low=75),
        needs=accuracies(),
        measure=share_that_holds,
    ),
    Claim(
        name="mean_mode_is_the_same",
        where="4.2.3",
        says="Mean mode has no noticeable impact on the results.",
        decided_by="accuracy in mean mode minus sampled, re-evaluated, where they differ most",
        unit="points",
        holds=Range(-10, 10),
        needs=(*accuracies(), Needed("mean_mode")),
        measure=mean_mode_minus_sampled,
    ),
    Claim(
        name="deterministic_easily_fooled",
        where="4.2.4, Figure 3",
        says="The models without noise are easily fooled.",
        decided_by="zeros that become ones, deterministic and dropout models",
        unit="%",
        holds=Range(low=50),
        needs=ZEROS,
        measure=partial(outcomes, chosen=is_base, seen=False),
    ),
    *(
        Claim(
            name=f"adversary_often_fails_{'seen' if seen else 'reevaluated'}",
            where="4.2.4, Figure 3",
            says=f"On VIB with reasonably large beta the adversary often fails, {text}.",
            decided_by="zeros that do not become ones, VIB at beta = 1e-3 and 1e-2",
            unit="%",
            holds=Range(low=20),
            needs=ZEROS,
            measure=partial(failures, seen=seen),
        )
        for seen, text in ((True, "as it sees it"), (False, "re-evaluated"))
    ),
    Claim(
        name="larger_perturbations_zeros",
        where="4.2.4, Figure 4(a)",
        says=(
            "A successful attack has to be much larger on VIB: the paper's setting, zeros to ones."
        ),
        decided_by="mean L2 of successes seen relative to deterministic, the smaller of beta = "
        "1e-3 and 1e-2",
        unit="times",
        holds=Range(low=MUCH),
        needs=ZEROS,
        measure=partial(relative_norm, norm="l2", to_zero=False),
    ),
    *(
        Claim(
            name=f"larger_perturbations_{mode}",
            where="4.2.4, Figure 4(a)",
            says=f"The same: the paper's setting, all classes, {mode}.",
            decided_by="median L2 of successes seen relative to deterministic, the smaller of "
            "beta = 1e-3 and 1e-2",
            unit="times",
            holds=Range(low=MUCH),
            needs=accuracies(f"attack.confidence=0 mode={mode}"),
            measure=partial(median_norm, of=(VIB, mode), to=(BASE, mode)),
            least_seeds=3,
        )
        for mode in MODES
    ),
    *(
        Claim(
            name=f"larger_perturbations_expected_{mode}",
            where="4.2.4, Figure 4(a)",
            says=f"The same at equal expected success (15 of 20 answers), all classes, {mode}.",
            decided_by="median L2 relative to deterministic, the smaller of beta = 1e-3 and 1e-2",
            unit="times",
            holds=Range(low=MUCH),
            needs=(Needed(EXPECTED, f"mode={mode}"),),
            measure=partial(expected_norm, norm="l2", to_zero=False),
            least_seeds=3,
        )
        for mode in MODES
    ),
    *(
        Claim(
            name=f"{label.lower()}_{trend}",
            where="4.2.4, Figure 4(a)",
            says=f"As beta increases, {label} {trend}: the paper's setting, zeros to ones.",
            decided_by=f"mean {label} of successes seen at beta = 1e-2 relative to that at 0",
            unit="times",
            holds=holds,
            needs=ZEROS,
            measure=partial(relative_norm, norm=norm, to_zero=True),
        )
        for norm, label, trend, holds in AS_BETA_GROWS
    ),
    *(
        Claim(
            name=f"{label.lower()}_{trend}_expected",
            where="4.2.4, Figure 4(a)",
            says=f"As beta increases, {label} {trend}: at equal expected success, targeted.",
            decided_by=f"median {label} at beta = 1e-2 relative to that at 0",
            unit="times",
            holds=holds,
            needs=(Needed(EXPECTED, "mode=targeted"),),
            measure=partial(expected_norm, norm=norm, to_zero=True),
            least_seeds=3,
        )
        for norm, label, trend, holds in AS_BETA_GROWS
    ),
    Claim(
        name="accurate_unperturbed",
        where="4.2.4, Figure 4(b)",
        says="All models tested are right on more than 98.4% of the test images as they are.",
        decided_by="accuracy of the worst model of Figures 3 and 4, on these very images",
        unit="%",
        holds=Range(low=98.4),
        needs=(*ZEROS, *accuracies()),
        measure=smallest_accuracy,
    ),
    Claim(
        name="deterministic_at_zero",
        where="4.2.4, Figure 4(b)",
        says="The deterministic model's accuracy under attack is 0%.",
        decided_by="accuracy on attacked images, the larger of both modes",
        unit="%",
        holds=Range(high=2),
        needs=accuracies(),
        measure=deterministic_accuracy,
    ),
    *(
        Claim(
            name=f"vib_more_accurate_{name}",
            where="4.2.4, Figure 4(b)",
            says=f"Over a broad range of beta VIB is much more accurate under attack: {text}.",
            decided_by="accuracy minus deterministic, median over beta > 0, smaller of both modes",
            unit="points",
            holds=Range(low=10),
            needs=accuracies(f"attack.confidence={kappa}"),
            measure=partial(gain_in_accuracy, quantity=quantity, betas=any_beta),
        )
        for name, text, kappa, quantity in (
            ("seen", "as the attack sees it", 0, SEEN),
            ("reevaluated", "re-evaluated", 0, RECHECK),
            ("with_lead", "re-evaluated, with a lead of one logit", 1, RECHECK),
        )
    ),
    Claim(
        name="untargeted_easier_to_resist",
        where="4.2.4, Figure 4(b) caption",
        says="Untargeted attacks are easier to resist.",
        decided_by="VIB's accuracy, re-evaluated, untargeted minus targeted, mean over beta",
        unit="points",
        holds=Range(low=0),
        needs=accuracies(),
        measure=untargeted_minus_targeted,
    ),
    Claim(
        name="tiny_beta_is_zero",
        where="4.2.4, Figure 4(b) caption",
        says="The smallest beta (1e-11; 1e-8 here) is indistinguishable from beta = 0.",
        decided_by="accuracy, re-evaluated, minus that at 0, where they differ most",
        unit="points",
        holds=Range(-10, 10),
        needs=accuracies(),
        measure=smallest_beta_minus_zero,
    ),
    *(
        Claim(
            name=f"robust_at_zero_{name}",
            where="4.2.4, Figure 4(b)",
            says=f"There is surprising robustness even as beta goes to 0: {text}.",
            decided_by="accuracy at beta = 0 minus deterministic, the smaller of both modes",
            unit="points",
            holds=Range(low=10),
            needs=accuracies(f"attack.confidence={kappa}"),
            measure=partial(gain_in_accuracy, quantity=RECHECK, betas=zero),
        )
        for name, text, kappa in (
            ("reevaluated", "re-evaluated", 0),
            ("with_lead", "re-evaluated, with a lead of one logit", 1),
        )
    ),
)
