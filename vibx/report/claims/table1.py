"""Claims of Table 1: the regularisers' test errors, and that VIB's is smaller."""

from functools import partial

import numpy as np

from vibx.report import published, statistics
from vibx.report.ledger import (
    Claim,
    Found,
    Measured,
    Needed,
    Range,
    mean_of_seeds,
    mean_over,
    wrong_answers,
)
from vibx.report.runs import SELECTIONS, error_of
from vibx.store import StoredRun

TOLERANCE = 0.05  # of a published number, within which ours is the same
NAMES = {
    "maximum_likelihood": "the deterministic baseline",
    "dropout": "dropout",
    "confidence_penalty": "the confidence penalty",
    "label_smoothing": "label smoothing",
    "vib": "VIB at beta = 1e-3",
}
SELECTED = {
    "confidence_penalty": "select_penalty",
    "label_smoothing": "select_smoothing",
}


def error(found: Found, objective: str) -> Measured:
    """The mean test error of a model of Table 1."""
    seeds = of_objective(found, objective)
    images = seeds[0].record["test"]["n"]
    return mean_over([error_of(run, "test") for run in seeds], images)


def minus_vib(found: Found, objective: str) -> Measured:
    """A model's error minus VIB's, over the seeds that both have."""
    models = [of_objective(found, name) for name in (objective, "vib")]
    common = set.intersection(*({seed_of(run) for run in seeds} for seeds in models))
    wrong, vib = (
        wrong_answers([run for run in seeds if seed_of(run) in common], "class_mc")
        for seeds in models
    )
    crossed = statistics.crossed_bootstrap(wrong, minus=vib, seed=statistics.BOOTSTRAP_SEED)
    return Measured(crossed.difference, crossed.interval, len(common), wrong.shape[1])


def spread_over_values(found: Found, objective: str) -> Measured:
    """The validation error of a regulariser's worst value minus that of its best."""
    experiment = SELECTED[objective]
    selection = SELECTIONS[experiment]
    errors: dict[float, list[float]] = {}
    for run in sorted(found[experiment], key=seed_of):
        value = run.record["config"][selection.group][selection.number]
        errors.setdefault(value, []).append(error_of(run, "validation"))
    best, *_, last = sorted(errors.values(), key=lambda seeds: float(np.mean(seeds)))
    images = found[experiment][0].record["validation"]["n"]
    return mean_of_seeds(np.subtract(last, best))._replace(images=images)


def of_objective(found: Found, objective: str) -> list[StoredRun]:
    """A model's runs by seed."""
    return sorted(
        (r for r in found["table1"] if r.record["config"]["objective"]["name"] == objective),
        key=seed_of,
    )


def seed_of(run: StoredRun) -> int:
    """A run's seed."""
    return run.record["config"]["seed"]


def number(objective: str) -> Claim:
    """The claim of a model's error."""
    percent = 100 * published.TABLE_1[objective]
    low, high = (round(percent * (1 + sign * TOLERANCE), 2) for sign in (-1, 1))
    return Claim(
        name=f"table1_{objective}",
        where="4.1.1, Table 1",
        says=f"The test error of {NAMES[objective]} is {percent:.2f}%.",
        decided_by=f"mean error, within {TOLERANCE:.0%} of the published number",
        unit="%",
        holds=Range(low, high),
        needs=(Needed("table1", f"objective={objective}"),),
        measure=partial(error, objective=objective),
        least_seeds=3,
    )


def better(objective: str) -> Claim:
    """The claim that VIB's error is smaller than another model's."""
    return Claim(
        name=f"vib_better_than_{objective}",
        where="4.1.1, Table 1",
        says=f"VIB's test error is smaller than that of {NAMES[objective]}.",
        decided_by="mean error of the other minus VIB's",
        unit="points",
        holds=Range(low=0),
        needs=(Needed("table1", f"objective={objective},vib"),),
        measure=partial(minus_vib, objective=objective),
        least_seeds=3,
    )


def hyperparameters(objective: str) -> Claim:
    """The claim that a hyperparameter explains the distance to Pereyra et al. (2016)."""
    gap = 100 * (published.TABLE_1[objective] - published.PEREYRA[objective])
    experiment = SELECTED[objective]
    number = SELECTIONS[experiment].number
    return Claim(
        name=f"{objective}_hyperparameters",
        where="4.1.1, Table 1 caption",
        says=(
            f"Other hyperparameters explain the distance of {NAMES[objective]} to Pereyra et al. "
            f"(2016), {gap:.2f} points."
        ),
        decided_by=(
            f"validation error of the worst value of {number} tried minus that of the best "
            "(which were chosen for it: the interval is too narrow)"
        ),
        unit="points",
        holds=Range(low=round(gap, 2)),
        needs=(Needed(experiment),),
        measure=partial(spread_over_values, objective=objective),
        least_seeds=3,
    )


CLAIMS = (
    *map(number, NAMES),
    *(better(objective) for objective in NAMES if objective != "vib"),
    *map(hyperparameters, SELECTED),
)
