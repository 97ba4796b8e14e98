"""Statistics against scipy, closed forms, plain resampling and simulation."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vibx.report import statistics

ERRORS = np.array([0.0121, 0.0118, 0.0125, 0.0119, 0.0130])
OTHERS = np.array([0.0115, 0.0120, 0.0117, 0.0116, 0.0119])

errors = st.lists(st.integers(0, 10_000), min_size=2, max_size=6).map(np.array)
pairs_of_errors = errors.flatmap(
    lambda a: st.tuples(st.just(a), hnp.arrays(np.int64, len(a), elements=st.integers(0, 10_000)))
)


# Over seeds


def test_the_interval_over_seeds_is_scipys():
    estimate = statistics.over_seeds(ERRORS)
    assert estimate.mean == pytest.approx(ERRORS.mean())
    assert estimate.seeds == 5
    expected = scipy.stats.ttest_1samp(ERRORS, 0).confidence_interval(0.95)
    assert estimate.interval == pytest.approx(tuple(expected))


def test_a_single_seed_has_no_interval():
    assert statistics.over_seeds([0.0121]) == (0.0121, None, 1)


def test_the_interval_over_seeds_holds_the_mean_19_times_in_20():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (1000, 5))
    intervals = np.array([statistics.over_seeds(seeds).interval for seeds in draws])
    coverage = ((intervals[:, 0] < 3.0) & (intervals[:, 1] > 3.0)).mean()
    assert coverage == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / len(draws)))


def test_the_paired_t_is_scipys():
    expected = scipy.stats.ttest_rel(ERRORS, OTHERS)
    found = statistics.paired_t(ERRORS, minus=OTHERS)
    assert found.difference == pytest.approx(np.mean(ERRORS) - np.mean(OTHERS))
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p == pytest.approx(expected.pvalue)


@given(pairs_of_errors)
def test_swapping_the_models_mirrors_the_paired_t(pair):
    one, other = pair
    found = statistics.paired_t(one, minus=other)
    swapped = statistics.paired_t(other, minus=one)
    assert swapped.difference == -found.difference
    assert swapped.interval == pytest.approx((-found.interval.high, -found.interval.low))
    assert swapped.p == pytest.approx(found.p)


@given(pairs_of_errors)
def test_the_paired_t_rejects_zero_where_its_interval_excludes_it(pair):
    one, other = pair
    _, (low, high), p = statistics.paired_t(one, minus=other)
    if not math.isclose(p, 0.05, rel_tol=1e-6):
        assert (p < 0.05) == (low > 0 or high < 0)


def test_a_paired_t_takes_two_seeds():
    with pytest.raises(ValueError, match="two seeds"):
        statistics.paired_t([0.1], minus=[0.2])


# Over images


@given(hnp.arrays(bool, 20), hnp.arrays(bool, 20))
def test_mcnemar_is_the_binomial_sum(wrong, against):
    this = sum(w and not a for w, a in zip(wrong, against, strict=True))
    other = sum(a and not w for w, a in zip(wrong, against, strict=True))
    tail = sum(math.comb(this + other, k) for k in range(min(this, other) + 1))
    p = min(1.0, 2 * tail / 2 ** (this + other))
    assert statistics.mcnemar(wrong, against=against) == pytest.approx((this, other, p))


# Over seeds and images


def wrong_answers(*, seeds, images, extra, draw):
    """Two models that share hard images; the first one is wrong on a few more, by seed."""
    hard = draw.random(images) < 0.05
    minus = (draw.random((seeds, images)) < 0.5) & hard
    more = draw.random((seeds, images)) < extra * np.arange(1, seeds + 1)[:, None]
    return minus ^ ((draw.random((seeds, images)) < 0.3) & hard) | more, minus


def resampled(wrong, minus, *, resamples, draw):
    """The differences of resamples, drawn index by index."""
    differences = wrong.astype(float) - minus
    seeds, images = differences.shape
    rows = draw.integers(seeds, size=(resamples, seeds, 1))
    columns = draw.integers(images, size=(resamples, 1, images))
    return np.array([differences[r, c].mean() for r, c in zip(rows, columns, strict=True)])


def test_the_crossed_bootstrap_resamples_seeds_and_images():
    draw = np.random.default_rng(1)
    wrong, minus = wrong_answers(seeds=4, images=500, extra=0.004, draw=draw)
    difference, (low, high), p = statistics.crossed_bootstrap(wrong, minus=minus, seed=0)
    assert difference == pytest.approx(wrong.mean() - minus.mean())
    plain = resampled(wrong, minus, resamples=10_000, draw=draw)
    error = 4 * math.sqrt(2 * 0.025 * 0.975 / 10_000)  # of two Monte Carlo estimates of 0.025
    # A resample can equal a bound exactly, and then counts on neither side.
    for beyond, or_at in ((plain < low, plain <= low), (plain > high, plain >= high)):
        assert beyond.mean() < 0.025 + error
        assert or_at.mean() > 0.025 - error
    expected = 2 * min((plain <= 0).mean(), (plain >= 0).mean())
    assert 0.001 < expected < 0.2  # else this p would test little
    assert p == pytest.approx(expected, abs=4 * math.sqrt(2 * 2 * expected / 10_000))


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_swapping_the_models_mirrors_the_crossed_bootstrap(seed):
    pair = wrong_answers(seeds=5, images=2000, extra=0.002, draw=np.random.default_rng(seed))
    found = statistics.crossed_bootstrap(pair[0], minus=pair[1], seed=0)
    swapped = statistics.crossed_bootstrap(pair[1], minus=pair[0], seed=1)
    assert swapped.difference == -found.difference
    # A 2.5% quantile of 10,000 normal draws has a standard error of 0.027 of their deviation, a
    # quarter of the interval's width.
    tolerance = 6 * math.sqrt(2) * 0.027 * (found.interval.high - found.interval.low) / 4
    mirrored = (-found.interval.high, -found.interval.low)
    assert swapped.interval == pytest.approx(mirrored, abs=tolerance)


def test_the_same_model_twice_has_no_difference():
    wrong, _ = wrong_answers(seeds=3, images=100, extra=0.1, draw=np.random.default_rng(2))
    assert statistics.crossed_bootstrap(wrong, minus=wrong, seed=0) == (0, (0, 0), 1)


def test_a_difference_in_every_seed_and_image_is_sure():
    wrong = np.ones((3, 50), bool)
    found = statistics.crossed_bootstrap(wrong, minus=~wrong, seed=0)
    assert found[:2] == (1, (1, 1))
    assert found.p < 0.001


def test_the_resampling_repeats_with_its_seed():
    wrong, minus = wrong_answers(seeds=5, images=500, extra=0.01, draw=np.random.default_rng(3))
    first, again, other = (
        statistics.crossed_bootstrap(wrong, minus=minus, seed=seed) for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("harder", ["seeds", "images"])
def test_the_interval_counts_seeds_and_images(harder):
    """Differences that come in whole seeds or whole images are as many data as there are those."""
    draw = np.random.default_rng(4)
    shape = {"seeds": (20, 1), "images": (1, 400)}[harder]
    wrong = np.broadcast_to(draw.random(shape) < 0.5, (20, 400))
    low, high = statistics.crossed_bootstrap(wrong, minus=np.zeros_like(wrong), seed=0).interval
    share = wrong.mean()
    deviation = math.sqrt(share * (1 - share) / max(shape))
    assert (high - low) / 2 == pytest.approx(1.96 * deviation, rel=0.1)


# Several tests


def test_holm_by_hand():
    adjusted = statistics.holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_finds_what_the_step_down_procedure_finds(p_values):
    level, found = 0.05, set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if (len(p_values) - rank) * p_values[index] >= level:
            break
        found.add(index)
    adjusted = statistics.holm(p_values)
    assert set(np.flatnonzero(adjusted < level)) == found
    assert (adjusted >= p_values).all()


def test_a_ratio_of_medians_of_models_that_differ_by_a_factor_is_that_factor():
    base = np.random.default_rng(0).lognormal(size=(3, 40))
    ratio = statistics.ratio_of_medians(1.25 * base, to=base, seed=0)
    assert ratio.value == pytest.approx(1.25)
    assert ratio.interval.low < 1.25 < ratio.interval.high
    alone = statistics.ratio_of_medians(1.25 * base[:1], to=base[:1], seed=0)
    np.testing.assert_allclose(alone.interval, 1.25)  # images are paired, and there is one seed


def test_the_interval_of_a_ratio_of_medians_covers_it(monkeypatch):
    """Models whose norms of an image have medians 1.2 and 1, with noise of image, seed and both."""
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    draw, covered = np.random.default_rng(1), []
    for _ in range(40):
        image = draw.normal(size=(1, 60), scale=0.4)
        ours, theirs = (
            level * np.exp(image + sum(draw.normal(size=(8, n), scale=0.1) for n in (1, 60)))
            for level in (1.2, 1.0)
        )
        low, high = statistics.ratio_of_medians(ours, to=theirs, seed=2).interval
        covered.append(low < 1.2 < high)
    assert np.mean(covered) > 0.85


def test_failures_are_larger_than_any_norm():
    values = np.array([[1.0, 2.0, np.inf], [2.0, np.inf, 1.0]])
    assert statistics.ratio_of_medians(values, to=np.ones((1, 3)), seed=0).value == 2
    failed = np.full((1, 3), np.inf)
    assert statistics.ratio_of_medians(failed, to=np.ones((1, 3)), seed=0).value == np.inf


@pytest.mark.filterwarnings("error")
def test_where_more_fail_than_an_interval_leaves_out_it_has_no_end():
    resampled = np.array([1.0, 2.0, *[3.0] * 90, *[np.inf] * 8])
    assert statistics.percentiles(resampled) == (3, np.inf)
    assert statistics.percentiles(np.full(100, np.inf)) == (np.inf, np.inf)
    assert np.isnan(statistics.percentiles(np.full(100, np.nan))).all()


def test_images_that_do_not_count_are_left_out_of_a_ratio():
    values = np.array([[2.0, 4.0, 8.0, np.nan]])
    base = np.array([[1.0, 2.0, 4.0, 900.0]])
    without = statistics.ratio_of_medians(values, to=np.where(base > 9, np.nan, base), seed=0)
    assert without.value == 2
    ratio = statistics.ratio_of_means(values, to=base[:, :3][:, [0, 1, 2, 2]], seed=0)
    assert ratio.value == pytest.approx((14 / 3) / (11 / 4))
    assert 0 < ratio.interval.low < ratio.value < ratio.interval.high
    nothing = statistics.ratio_of_means(np.full((1, 4), np.nan), to=base, seed=0)
    assert np.isnan([nothing.value, *nothing.interval]).all()


# Shares of images


@pytest.mark.parametrize(("count", "n"), [(0, 250), (123, 10_000), (9, 10), (250, 250)])
def test_wilsons_interval_is_scipys(count, n):
    expected = scipy.stats.binomtest(count, n).proportion_ci(0.95, method="wilson")
    assert statistics.wilson(count / n, n) == pytest.approx(tuple(expected), abs=1e-12)


def test_newcombes_interval_is_his_own_examples():
    """Newcombe (1998), table II, method 10: examples (a) and (b)."""
    found = statistics.newcombe(56 / 70, 70, minus=48 / 80, of=80)
    assert found == pytest.approx((0.0524, 0.3339), abs=5e-5)
    found = statistics.newcombe(9 / 10, 10, minus=3 / 10, of=10)
    assert found == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_resampled_errors_are_those_of_the_crossed_bootstrap():
    draw = np.random.default_rng(3)
    wrong, minus = draw.random((3, 400)) < 0.1, draw.random((3, 400)) < 0.07
    crossed = statistics.crossed_bootstrap(wrong, minus=minus, seed=0).interval
    errors = statistics.resampled_errors([wrong, minus], seed=1)
    assert errors.mean(axis=0) == pytest.approx([wrong.mean(), minus.mean()], abs=2e-3)
    found = statistics.percentiles(errors[:, 0] - errors[:, 1])
    assert found == pytest.approx(crossed, abs=3e-3)


def test_resampled_errors_of_one_seed_vary_with_the_images_alone():
    wrong = np.arange(1000)[None] < 100
    errors = statistics.resampled_errors([wrong, wrong, np.repeat(wrong, 2, 0)], seed=0)
    np.testing.assert_array_equal(errors[:, 0], errors[:, 1])
    np.testing.assert_allclose(errors[:, 0], errors[:, 2])
    assert errors[:, 0].std() == pytest.approx(math.sqrt(0.1 * 0.9 / 1000), rel=0.05)
