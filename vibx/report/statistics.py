"""Intervals over seeds, and paired comparisons of two models over seeds and test images.

Distributions are of scipy.special: scipy.stats takes two seconds to import.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special  # type: ignore[import-untyped]

LEVEL = 0.95  # of every interval
RESAMPLES = 10_000
BOOTSTRAP_SEED = 0
CHUNK = 250  # resamples at a time; divides `RESAMPLES`, bounds memory


class Interval(NamedTuple):
    """A 95% interval, in the unit of what it is about."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A mean over seeds. A single seed has no interval."""

    mean: float
    interval: Interval | None
    seeds: int


class Comparison(NamedTuple):
    """A mean difference of two models' errors; `p` is of the two-sided test that it is zero."""

    difference: float
    interval: Interval
    p: float


class Ratio(NamedTuple):
    """How many times larger a quantity is than another."""

    value: float
    interval: Interval


class McNemar(NamedTuple):
    """Images that only this, or only the other model gets wrong; `p` that both are as likely."""

    only_this: int
    only_other: int
    p: float


def over_seeds(values: npt.ArrayLike) -> Estimate:
    """The mean of one value per seed, with its Student t interval."""
    values = np.asarray(values, np.float64)
    mean, seeds = float(values.mean()), len(values)
    if seeds == 1:
        return Estimate(mean, None, seeds)
    half = float(special.stdtrit(seeds - 1, (1 + LEVEL) / 2)) * _standard_error(values)
    return Estimate(mean, Interval(mean - half, mean + half), seeds)


def _standard_error(values: npt.NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def paired_t(errors: npt.ArrayLike, *, minus: npt.ArrayLike) -> Comparison:
    """The paired t test over seeds: `errors` and `minus` are two models' errors, seed by seed.

    The test images are taken as given: it says nothing about other images.

    Raises:
      ValueError: fewer than two seeds.
    """
    differences = np.subtract(errors, minus)
    difference, interval, _ = over_seeds(differences)
    if interval is None:
        raise ValueError("a paired t test takes at least two seeds")
    with np.errstate(divide="ignore"):
        t = np.divide(abs(difference), _standard_error(differences)) if differences.any() else 0
    p = float(2 * special.stdtr(len(differences) - 1, -t))
    return Comparison(difference, interval, p)


def wilson(share: float, n: int) -> Interval:
    """Wilson's interval of a share of n images; too wide where it is a mean of shares."""
    z2 = float(special.ndtri((1 + LEVEL) / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def newcombe(share: float, n: int, *, minus: float, of: int) -> Interval:
    """The interval of a difference of shares of n and of `of` images, which are not paired.

    Newcombe (1998), method 10, of two Wilson intervals.
    """
    return of_difference(share, wilson(share, n), minus=minus, of=wilson(minus, of))


def of_difference(value: float, interval: Interval, *, minus: float, of: Interval) -> Interval:
    """The interval of a difference from those of both sides, which are not paired."""
    difference = value - minus
    below = math.hypot(value - interval.low, of.high - minus)
    above = math.hypot(interval.high - value, minus - of.low)
    return Interval(difference - below, difference + above)


def mcnemar(wrong: npt.ArrayLike, *, against: npt.ArrayLike) -> McNemar:
    """The exact McNemar test of two models, from whether each gets each image wrong."""
    wrong, against = np.asarray(wrong, bool), np.asarray(against, bool)
    this, other = int((wrong & ~against).sum()), int((against & ~wrong).sum())
    p = min(1.0, 2 * float(special.bdtr(min(this, other), this + other, 0.5)))
    return McNemar(this, other, p)


def crossed_bootstrap(wrong: npt.ArrayLike, *, minus: npt.ArrayLike, seed: int) -> Comparison:
    """The difference of two models' mean errors, for other seeds and other test images.

    Seeds and images are resampled independently of each other, and both models keep the same
    ones. The interval is the percentile one; it tends to be too wide where the models' mistakes
    vary from seed to seed (Owen 2007, "The pigeonhole bootstrap").

    Args:
      wrong: whether a model is wrong, [seeds, images].
      minus: the same of the model that is subtracted, for the same seeds and images.
      seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    differences = np.asarray(wrong, np.int64) - np.asarray(minus, np.int64)
    seeds, images = differences.shape
    # Images whose differences agree in every seed are interchangeable: it is enough to draw how
    # many of each pattern a resample has, and most images have the pattern of no difference.
    patterns, counts = np.unique(differences, axis=1, return_counts=True)
    of_patterns = rng.multinomial(images, counts / images, size=RESAMPLES)
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    sums = ((of_patterns @ patterns.T) * of_seeds).sum(axis=1)
    # The smallest level whose interval holds zero; the data themselves count as one resample.
    beyond = 1 + min((sums <= 0).sum(), (sums >= 0).sum())
    p = min(1.0, float(2 * beyond / (RESAMPLES + 1)))
    return Comparison(float(differences.mean()), percentiles(sums / differences.size), p)


def resampled_errors(wrong: Sequence[npt.ArrayLike], *, seed: int) -> npt.NDArray[np.float64]:
    """Mean errors of several models, for other seeds and other test images.

    All models keep the same resampled images, and those with as many seeds the same seeds, for
    they are paired. One seed is as it is: then only the images vary.

    Args:
      wrong: whether a model is wrong, [its seeds, images], for each model.
      seed: of the resampling.

    Returns:
      [RESAMPLES, models].
    """
    rng = np.random.default_rng(seed)
    models = [np.asarray(model, np.int64) for model in wrong]
    # As in `crossed_bootstrap`: images with the same answers of all runs are interchangeable.
    patterns, counts = np.unique(np.concatenate(models), axis=1, return_counts=True)
    images = counts.sum()
    errors = rng.multinomial(images, counts / images, size=RESAMPLES) @ patterns.T / images
    weights: dict[int, npt.NDArray[np.float64]] = {}
    means, start = [], 0
    for seeds in map(len, models):
        if seeds not in weights:
            drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
            weights[seeds] = drawn / seeds
        means.append((errors[:, start : start + seeds] * weights[seeds]).sum(axis=1))
        start += seeds
    return np.stack(means, axis=1)


def percentiles(resampled: npt.NDArray[np.float64]) -> Interval:
    """The percentile interval of a resampled quantity, which may be infinite."""
    levels = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    with np.errstate(invalid="ignore"):
        between = np.quantile(resampled, levels)  # NaN between two infinities
    low, high = np.where(np.isnan(between), np.quantile(resampled, levels, method="lower"), between)
    return Interval(float(low), float(high))


def ratio_of_medians(values: npt.ArrayLike, *, to: npt.ArrayLike, seed: int) -> Ratio:
    """How many times larger a model's values are than another's: medians over the images.

    Medians are averaged over the seeds first. The interval is the percentile one for other seeds
    and other images: both models keep the same resampled images, for they are paired, but not the
    same seeds. Three seeds say little about others: then it is too narrow in that.

    Args:
      values: of one model, [seeds, images]; infinite where there is none, NaN where an image is
        not to count.
      to: of the other, for the same images.
      seed: of the resampling.
    """
    missing = np.isnan(values).any() or np.isnan(to).any()
    return _ratio(np.nanmedian if missing else np.median, values, to, seed)


def ratio_of_means(values: npt.ArrayLike, *, to: npt.ArrayLike, seed: int) -> Ratio:
    """As `ratio_of_medians`, of means over the images where there is a value: NaN where not."""
    return _ratio(np.nanmean, values, to, seed)


def _ratio(
    average: Callable[..., Any], values: npt.ArrayLike, to: npt.ArrayLike, seed: int
) -> Ratio:
    rng = np.random.default_rng(seed)
    models = [np.asarray(model, np.float64) for model in (values, to)]
    images = models[0].shape[1]
    resampled = np.empty((2, RESAMPLES))
    for start in range(0, RESAMPLES, CHUNK):
        chosen = rng.integers(images, size=(CHUNK, images))
        for i, model in enumerate(models):
            seeds = len(model)
            averages = _averages(average, model[:, chosen])
            weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=CHUNK) / seeds
            drawn = weights.T > 0  # not 0 times infinity
            of_seeds = np.multiply(weights.T, averages, where=drawn, out=np.zeros_like(averages))
            resampled[i, start : start + CHUNK] = of_seeds.sum(axis=0)
    ratio, base = (float(_averages(average, model).mean()) for model in models)
    ratios = resampled[0] / resampled[1]
    there = ratios[~np.isnan(ratios)]  # a resample without any value has no ratio
    interval = percentiles(there) if len(there) else Interval(math.nan, math.nan)
    return Ratio(ratio / base, interval)


def _averages(average: Callable[..., Any], values: npt.NDArray[np.float64]) -> Any:
    """Averages over the last axis; NaN where there is no value."""
    with warnings.catch_warnings():
        for message in ("Mean of empty slice", "All-NaN slice"):
            warnings.filterwarnings("ignore", message, RuntimeWarning)
        return average(values, axis=-1)


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Holm's adjustment of several tests' p, in their order.

    Where all of them that are below a level count as found, the probability of any false finding
    is at most that level.
    """
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return adjusted
