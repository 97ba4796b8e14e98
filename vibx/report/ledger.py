"""The ledger of the paper's claims: what a claim is, and how records decide it.

A claim holds where the whole interval of what is measured lies in the claim's range, and does not
where it lies outside as a whole. What is measured without an interval, bits of a single seed, is
compared by itself: the ranges of such claims leave room.
"""

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vibx import store
from vibx.experiments import command_of
from vibx.report import claims, statistics
from vibx.report.runs import Wrong
from vibx.report.statistics import BOOTSTRAP_SEED, Interval
from vibx.store import StoredRun

HOLDS, FAILS = "holds", "does not hold"
UNDECIDED, UNTESTED = "cannot be told", "not tested"
VERDICTS = HOLDS, FAILS, UNDECIDED, UNTESTED

FACTORS = {"%": 100.0, "points": 100.0, "bits": 1.0, "times": 1.0}  # of what is measured, by unit

Found = dict[str, list[Any]]  # runs, or attacks, by experiment
Array = npt.NDArray[np.float64]


class Range(NamedTuple):
    """Where a claim holds, in its unit."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        """In words."""
        if math.isinf(self.low):
            return f"below {self.high:g}"
        if math.isinf(self.high):
            return f"above {self.low:g}"
        return f"between {self.low:g} and {self.high:g}"


class Needed(NamedTuple):
    """Records that a claim needs: an experiment's, `only` those with these values of its grid.

    `only` is as in the shell: `beta=1e-3,1e-2 objective=vib`.
    """

    experiment: str
    only: str = ""

    def command(self, scale: str) -> str:
        """The command that makes them."""
        parts = [f"experiment={self.experiment}", self.only, f"scale={scale}"]
        return " ".join(["vibx", command_of(self.experiment), *filter(None, parts)])

    def among(self, settings: Sequence[dict[str, Any]]) -> list[int]:
        """Which of the configurations of runs, or of attacks, are needed, by their position."""
        conditions = [
            f"{key}={value}"
            for key, _, values in (part.partition("=") for part in self.only.split())
            for value in values.split(",")
        ]
        records = [{"position": i, "config": given} for i, given in enumerate(settings)]
        return [record["position"] for record in store.matching(records, ",".join(conditions))]


class Measured(NamedTuple):
    """What decides a claim, from how many seeds and test images; NaN where there is no such."""

    value: float
    interval: Interval | None
    seeds: int
    images: int | None = None


class Claim(NamedTuple):
    """A statement of the paper.

    Attributes:
        name: A name for its row.
        where: Section, and the table or figure that it is about.
        says: What it says.
        decided_by: What is measured.
        unit: Of `holds`, a key of `FACTORS`.
        holds: The range in which the claim holds.
        needs: The records that it is measured on.
        measure: Measures it on the records found, errors as fractions.
        least_seeds: With fewer seeds it cannot be told.
    """

    name: str
    where: str
    says: str
    decided_by: str
    unit: str
    holds: Range
    needs: tuple[Needed, ...]
    measure: Callable[[Found], Measured]
    least_seeds: int = 1


def find() -> list[Claim]:
    """The claims of all modules in `vibx.report.claims`, in the order of the paper's sections."""
    names = sorted(module.name for module in pkgutil.iter_modules(claims.__path__))
    modules = [importlib.import_module(f"{claims.__name__}.{name}") for name in names]
    found = [claim for module in modules for claim in module.CLAIMS]
    return sorted(found, key=lambda claim: claim.where)


def in_unit(claim: Claim, measured: Measured) -> Measured:
    """What is measured, in the claim's unit."""
    factor, interval = FACTORS[claim.unit], measured.interval
    scaled = interval and Interval(factor * interval.low, factor * interval.high)
    return measured._replace(value=factor * measured.value, interval=scaled)


def verdict(claim: Claim, measured: Measured | None) -> str:
    """The verdict on a claim; `measured` is in its unit, None where there are no records."""
    if measured is None:
        return UNTESTED
    low, high = measured.interval or (measured.value, measured.value)
    if measured.seeds < claim.least_seeds:
        return UNDECIDED
    if claim.holds.low < low and high < claim.holds.high:
        return HOLDS
    return FAILS if high <= claim.holds.low or low >= claim.holds.high else UNDECIDED


# What claims measure


def mean_over(values: npt.ArrayLike, images: int) -> Measured:
    """The mean over the seeds of shares of test images.

    Its interval is Student's t over the seeds; of a single seed Wilson's over the images.
    """
    mean, interval, seeds = statistics.over_seeds(values)
    return Measured(mean, interval or statistics.wilson(mean, images), seeds, images)


def mean_of_seeds(values: Sequence[float] | Array) -> Measured:
    """The mean over the seeds of what has no interval over images; NaN without seeds."""
    if not len(values):
        return Measured(math.nan, None, 0)
    return Measured(*statistics.over_seeds(values))


def compared(wrong: Sequence[Wrong], statistic: Callable[[Array], Array]) -> Measured:
    """A statistic of several models' errors, with its interval over seeds and test images.

    Args:
      wrong: whether a model is wrong, [its seeds, images], for each model.
      statistic: of errors [..., models].
    """
    value = float(statistic(np.array([model.mean() for model in wrong])))
    resampled = statistics.resampled_errors(wrong, seed=BOOTSTRAP_SEED)
    interval = statistics.percentiles(statistic(resampled))
    return Measured(value, interval, min(map(len, wrong)), wrong[0].shape[1])


def wrong_answers(stored: Iterable[StoredRun], predicted: str) -> Wrong:
    """Whether runs are wrong with one sample (`class_1`) or the average of all (`class_mc`)."""
    arrays = [store.read_arrays(run, store.PREDICTIONS) for run in stored]
    return np.stack([found[predicted] != found["labels"] for found in arrays])


def by_beta(stored: Iterable[StoredRun]) -> dict[float, dict[int, StoredRun]]:
    """Runs by beta and seed, both ascending."""
    found: dict[float, dict[int, StoredRun]] = {}
    for run in sorted(
        stored, key=lambda r: (r.record["config"]["beta"], r.record["config"]["seed"])
    ):
        config = run.record["config"]
        found.setdefault(config["beta"], {})[config["seed"]] = run
    return found


def by_seed(stored: Iterable[StoredRun]) -> list[dict[float, StoredRun]]:
    """Runs by beta, for each seed that has all of them."""
    found = by_beta(stored)
    complete = set.intersection(*(set(seeds) for seeds in found.values()))
    return [{beta: found[beta][seed] for beta in found} for seed in sorted(complete)]


def worst(measured: Iterable[Measured], key: Callable[[Measured], float]) -> Measured:
    """Of several quantities the one with the smallest key; NaN where there is none."""
    return min(measured, key=key, default=Measured(math.nan, None, 0))
