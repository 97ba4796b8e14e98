"""Claims of Figure 1: errors and information as beta varies, at K = 256 and K = 2."""

import math
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import numpy.typing as npt

from vibx import store
from vibx.information import bits
from vibx.report import class_only, runs, statistics
from vibx.report.ledger import (
    Array,
    Claim,
    Found,
    Measured,
    Needed,
    Range,
    by_beta,
    by_seed,
    compared,
    mean_of_seeds,
    mean_over,
    worst,
    wrong_answers,
)
from vibx.store import StoredRun

Classes = npt.NDArray[np.int_]

FIGURES = {256: "figure1", 2: "figure1b"}
CRITICAL, ABOVE = 1e-2, 1e-1  # the paper's critical beta, and a decade above it
SMALL = "beta=0,1e-9,1e-8,1e-7,1e-6,1e-5"
TINY = "beta=0,1e-9,1e-8,1e-7"
AT_RISE = "beta=1e-2,1e-1"
FROM_RISE = "beta=1e-2,3e-2,1e-1,3e-1,1"
BETWEEN = "beta=1e-3,3e-3,1e-2"
TO_CRITICAL = "beta=0,1e-9,1e-8,1e-7,1e-6,1e-5,1e-4,3e-4,1e-3,3e-3,1e-2"
BEST = 1e-3, 1e-2  # between which the paper has its best results

# Errors


def rise(found: Found, K: int, predicted: str) -> Measured:
    """How many times larger the test error is a decade above the critical beta."""
    betas = by_beta(found[FIGURES[K]])
    wrong = [wrong_answers(betas[beta].values(), predicted) for beta in (CRITICAL, ABOVE)]
    return compared(wrong, lambda errors: errors[..., 1] / errors[..., 0])


def rise_of_train_error(found: Found) -> Measured:
    """The one-sample training error a decade above the critical beta minus that at it."""
    seeds = by_seed(found["figure1"])
    pairs = [(run[ABOVE].record["train"], run[CRITICAL].record["train"]) for run in seeds]
    return difference([(high["error_1"], low["error_1"]) for high, low in pairs], *size(pairs[0]))


def objective_above_least(found: Found) -> Measured:
    """How far the training objective is, a decade above the critical beta, above the least known.

    That is an encoder's that sees the class alone, `class_only.aligned` in two of the K dimensions.
    """
    optimum = next(o for o in class_only.read() if o.beta == ABOVE)
    least = class_only.evaluate(ABOVE, class_only.aligned(optimum.model)).objective
    trained = by_beta(found["figure1"])[ABOVE].values()
    return mean_of_seeds([runs.train_objective_bits(run) - bits(least) for run in trained])


def error_gap(found: Found, K: int) -> Measured:
    """The averaged test error minus the training error, at the beta where that is smallest."""
    gaps = []
    for seeds in by_beta(found[FIGURES[K]]).values():
        pairs = [(run.record["test"], run.record["train"]) for run in seeds.values()]
        errors = [(test["error_mc"], train["error_mc"]) for test, train in pairs]
        gaps.append(difference(errors, *size(pairs[0])))
    return worst(gaps, lambda gap: gap.value)


def disagreement(found: Found) -> Measured:
    """The share of the test images on which one sample and the average differ, at its largest."""
    shares = []
    for seeds in by_beta(found["figure1"]).values():
        arrays = [answers(run) for run in seeds.values()]
        values = [float(np.mean(one != average)) for one, average in arrays]
        shares.append(mean_over(values, len(arrays[0][0])))
    return worst(shares, lambda share: -share.value)


def loss_at_zero(found: Found) -> Measured:
    """The averaged test error at beta = 0 minus that at the paper's best."""
    betas = by_beta(found["figure1"])
    wrong = [wrong_answers(betas[beta].values(), "class_mc") for beta in (0, BEST[0])]
    return compared(wrong, lambda errors: errors[..., 0] - errors[..., 1])


def gain_of_averaging(found: Found, K: int) -> Measured:
    """The one-sample error minus the averaged one, at the beta where that is smallest."""
    betas = by_beta(found[FIGURES[K]])
    one, average = (
        [wrong_answers(seeds.values(), predicted) for seeds in betas.values()]
        for predicted in ("class_1", "class_mc")
    )
    n = len(betas)
    return compared(
        [*one, *average], lambda errors: (errors[..., :n] - errors[..., n:]).min(axis=-1)
    )


def best_minus_others(found: Found) -> Measured:
    """The smallest averaged test error between the paper's best betas minus that elsewhere."""
    betas = by_beta(found["figure1"])
    inside = np.array([BEST[0] <= beta <= BEST[1] for beta in betas])
    wrong = [wrong_answers(seeds.values(), "class_mc") for seeds in betas.values()]
    return compared(
        wrong, lambda errors: errors[..., inside].min(axis=-1) - errors[..., ~inside].min(axis=-1)
    )


def k2_against_k256(found: Found, statistic: Callable[[Array, Array], Array]) -> Measured:
    """A statistic of the averaged test errors at K = 2 and K = 256, beta by beta; its smallest."""
    narrow, wide = (by_beta(found[figure]) for figure in ("figure1b", "figure1"))
    betas = [beta for beta in narrow if beta in wide]
    wrong = [wrong_answers(k[beta].values(), "class_mc") for k in (narrow, wide) for beta in betas]
    n = len(betas)
    return compared(wrong, lambda errors: statistic(errors[..., :n], errors[..., n:]).min(axis=-1))


def difference(errors: list[tuple[float, float]], n: int, of: int) -> Measured:
    """The mean difference of two errors, seed by seed; of one seed with Newcombe's interval."""
    mean, interval, seeds = statistics.over_seeds([one - other for one, other in errors])
    one, other = errors[0]
    return Measured(
        mean, interval or statistics.newcombe(one, n, minus=other, of=of), seeds, min(n, of)
    )


def size(records: tuple[dict[str, float], dict[str, float]]) -> tuple[int, int]:
    """How many images two sections of records are of."""
    return int(records[0]["n"]), int(records[1]["n"])


def answers(run: StoredRun) -> tuple[Classes, Classes]:
    """A run's classes of the test images with one sample, and with the average of all."""
    arrays = store.read_arrays(run, store.PREDICTIONS)
    return arrays["class_1"], arrays["class_mc"]


# Information


def rate_where_error_doubles(found: Found) -> Measured:
    """I(Z,X) at the first beta whose one-sample error is twice that at the critical one."""
    betas = by_beta(found["figure1"])
    error = {
        beta: np.mean([run.record["test"]["error_1"] for run in seeds.values()])
        for beta, seeds in betas.items()
    }
    doubled = [beta for beta in betas if error[beta] >= 2 * error[CRITICAL]]
    return worst([rate(betas[beta].values()) for beta in doubled[:1]], lambda rate: rate.value)


def error_below_class_bits(found: Found) -> Measured:
    """The smallest one-sample test error of a beta whose I(Z,X) cannot name a class."""
    classes = math.log2(runs.data_info(found["figure1"][0]).classes)
    betas = [list(seeds.values()) for seeds in by_beta(found["figure1"]).values()]
    errors = [
        mean_over([run.record["test"]["error_1"] for run in seeds], seeds[0].record["test"]["n"])
        for seeds in betas
        if rate(seeds).value < classes
    ]
    return worst(errors, lambda error: error.value)


def rate(seeds: Iterable[StoredRun]) -> Measured:
    """I(Z,X) on the test images."""
    return mean_of_seeds([run.record["test"]["izx_upper_bits"] for run in seeds])


def rate_nearest_to_bounds(found: Found, low: float, high: float) -> Measured:
    """I(Z,X) at the beta where it is, in factors, nearest to leaving the bounds."""
    rates = [rate(seeds.values()) for seeds in by_beta(found["figure1"]).values()]
    return worst(rates, lambda rate: min(rate.value / low, high / rate.value))


def largest_rise_of_rate(found: Found) -> Measured:
    """How many times larger I(Z,X) is than at the next smaller beta, at most."""
    per_seed = []
    for betas in by_seed(found["figure1"]):
        rates = np.array([run.record["test"]["izx_upper_bits"] for run in betas.values()])
        per_seed.append(float((rates[1:] / rates[:-1]).max()))
    return mean_of_seeds(per_seed)


def largest_drop_on_train(found: Found, K: int) -> Measured:
    """How far I(Z,Y) on the training images falls at most as I(Z,X) rises to the next beta's."""
    per_seed = []
    for betas in by_seed(found[FIGURES[K]]):
        records = sorted(
            (run.record["train"] for run in betas.values()), key=lambda r: r["izx_upper_bits"]
        )
        izy = np.array([record["izy_lower_bits"] for record in records])
        per_seed.append(float((izy[:-1] - izy[1:]).max()))
    return mean_of_seeds(per_seed)


def drop_on_test(found: Found) -> Measured:
    """The largest I(Z,Y) of any beta on the test images minus that at beta = 0."""
    per_seed = []
    for betas in by_seed(found["figure1"]):
        izy = {beta: run.record["test"]["izy_lower_bits"] for beta, run in betas.items()}
        per_seed.append(max(izy.values()) - izy[0])
    return mean_of_seeds(per_seed)


def gap(run: StoredRun) -> float:
    """I(Z,Y) on the training images minus that on the test images."""
    return run.record["train"]["izy_lower_bits"] - run.record["test"]["izy_lower_bits"]


def growth_of_gap(found: Found) -> Measured:
    """How much larger the gap in I(Z,Y) is at beta = 0 than at the critical beta."""
    return mean_of_seeds(
        [gap(betas[0]) - gap(betas[CRITICAL]) for betas in by_seed(found["figure1"])]
    )


def gap_at_k2(found: Found) -> Measured:
    """How many times larger the gap in I(Z,Y), a mean over beta, is at K = 2 than at K = 256."""
    narrow, wide = (
        [np.mean([gap(run) for run in betas.values()]) for betas in by_seed(found[figure])]
        for figure in ("figure1b", "figure1")
    )
    seeds = min(len(narrow), len(wide))
    return mean_of_seeds(np.divide(narrow[:seeds], wide[:seeds]))


def needs(K: int, only: str = "") -> tuple[Needed, ...]:
    """Runs of a panel."""
    return (Needed(FIGURES[K], only),)


CLAIMS = (
    *(
        Claim(
            name=f"error_shoots_up_{name}",
            where="4.1.1, Figure 1(a)",
            says=f"The error ({text}) shoots up once beta rises above 1e-2.",
            decided_by="test error at beta = 1e-1 relative to that at 1e-2",
            unit="times",
            holds=Range(low=2),
            needs=needs(256, AT_RISE),
            measure=partial(rise, K=256, predicted=predicted),
        )
        for name, text, predicted in (
            ("one_sample", "one sample", "class_1"),
            ("averaged", "average of 12 samples", "class_mc"),
        )
    ),
    Claim(
        name="rate_at_the_rise",
        where="4.1.1, Figure 1(a)",
        says="Where the error shoots up, I(Z,X) is below log2(10) bits.",
        decided_by="I(Z,X) at the first beta whose one-sample error is twice that at 1e-2",
        unit="bits",
        holds=Range(high=round(math.log2(10), 2)),
        needs=needs(256, FROM_RISE),
        measure=rate_where_error_doubles,
    ),
    Claim(
        name="too_few_bits_for_ten_classes",
        where="4.1.1, Figure 1(a)",
        says="With I(Z,X) below log2(10) bits the model can no longer represent ten classes.",
        decided_by="smallest one-sample test error of a beta with so little",
        unit="%",
        holds=Range(low=10),
        needs=needs(256, FROM_RISE),
        measure=error_below_class_bits,
    ),
    Claim(
        name="overfits_at_small_beta",
        where="4.1.1, Figure 1(a)",
        says="For small beta the test error is higher than the training error.",
        decided_by="test minus training error (averaged), smallest over beta <= 1e-5",
        unit="points",
        holds=Range(low=0),
        needs=needs(256, SMALL),
        measure=partial(error_gap, K=256),
    ),
    Claim(
        name="answers_nearly_deterministic",
        where="4.1.1, Figure 1(a)",
        says="For small beta the network learns to be nearly deterministic.",
        decided_by="test images where one sample and the average differ, most over beta <= 1e-7",
        unit="%",
        holds=Range(high=1),
        needs=needs(256, TINY),
        measure=disagreement,
    ),
    Claim(
        name="small_beta_loses_regularisation",
        where="4.1.1, Figure 1(a)",
        says="That reduces the benefit of regularisation: small beta is worse than a good one.",
        decided_by="averaged test error at beta = 0 minus that at 1e-3",
        unit="points",
        holds=Range(low=0),
        needs=needs(256, "beta=0,1e-3"),
        measure=loss_at_zero,
        least_seeds=3,
    ),
    Claim(
        name="averaging_helps",
        where="4.1.1, Figure 1(a)",
        says="For intermediate beta averaging over samples helps.",
        decided_by="one-sample minus averaged test error, smallest over beta from 1e-3 to 1e-2",
        unit="points",
        holds=Range(low=0),
        needs=needs(256, BETWEEN),
        measure=partial(gain_of_averaging, K=256),
    ),
    Claim(
        name="spike_is_underfitting",
        where="4.1.1, Figure 1(a) caption",
        says="The spike is a model too highly regularised: it fails on the training images too.",
        decided_by="one-sample training error at beta = 1e-1 minus that at 1e-2",
        unit="points",
        holds=Range(low=1),
        needs=needs(256, AT_RISE),
        measure=rise_of_train_error,
    ),
    Claim(
        name="spike_is_the_objectives",
        where="4.1.1, Figure 1(a) caption",
        says="The same: it is beta that asks for these errors; the objective is near its least.",
        decided_by="training objective at beta = 1e-1 above that of an encoder of the class alone",
        unit="bits",
        holds=Range(high=0.1),
        needs=needs(256, "beta=1e-1"),
        measure=objective_above_least,
    ),
    Claim(
        name="train_information_rises",
        where="4.1.1, Figure 1(c)",
        says="More I(Z,X) means more I(Z,Y) on the training images.",
        decided_by="largest fall of I(Z,Y) from one beta to the next with more I(Z,X)",
        unit="bits",
        holds=Range(high=0.01),
        needs=needs(256),
        measure=partial(largest_drop_on_train, K=256),
    ),
    Claim(
        name="test_information_falls",
        where="4.1.1, Figure 1(c)",
        says="On the test images I(Z,Y) does not necessarily rise with I(Z,X).",
        decided_by="largest I(Z,Y) of any beta minus that at beta = 0, on the test images",
        unit="bits",
        holds=Range(low=0.01),
        needs=needs(256),
        measure=drop_on_test,
        least_seeds=3,
    ),
    Claim(
        name="more_information_overfits",
        where="4.1.1, Figure 1(c) caption",
        says="Increasing I(Z,X) can result in overfitting.",
        decided_by="gap of I(Z,Y) between training and test images, at beta = 0 minus at 1e-2",
        unit="bits",
        holds=Range(low=0),
        needs=needs(256, "beta=0,1e-2"),
        measure=growth_of_gap,
        least_seeds=3,
    ),
    Claim(
        name="best_beta",
        where="4.1.1, Figure 1(d)",
        says="The best results are those with beta between 1e-3 and 1e-2.",
        decided_by="smallest averaged test error there minus the smallest elsewhere",
        unit="points",
        holds=Range(high=0),
        needs=needs(256),
        measure=best_minus_others,
        least_seeds=3,
    ),
    Claim(
        name="rate_of_the_best",
        where="4.1.1, Figure 1(d)",
        says="With beta between 1e-3 and 1e-2, I(Z,X) is of the order of 10 to 100 bits.",
        decided_by="the I(Z,X) of these betas that is nearest to a bound",
        unit="bits",
        holds=Range(10, 100),
        needs=needs(256, BETWEEN),
        measure=partial(rate_nearest_to_bounds, low=10, high=100),
    ),
    Claim(
        name="rate_falls_with_beta",
        where="4.1.1, Figure 1(d)",
        says="Lowering beta lets more information through.",
        decided_by="largest I(Z,X) relative to that at the next smaller beta",
        unit="times",
        holds=Range(high=1.05),
        needs=needs(256),
        measure=largest_rise_of_rate,
    ),
    Claim(
        name="about_ten_bits",
        where="4.1.1, Figure 1(d) caption",
        says="At beta = 1e-2 about 10 bits about the input are stored.",
        decided_by="I(Z,X) there, within a factor of two",
        unit="bits",
        holds=Range(5, 20),
        needs=needs(256, "beta=1e-2"),
        measure=partial(rate_nearest_to_bounds, low=5, high=20),
    ),
    Claim(
        name="k2_is_worse",
        where="4.1.2, Figure 1(b)",
        says="With K = 2 the classification is worse than with K = 256.",
        decided_by="averaged test error at K = 2 minus K = 256, smallest over beta <= 1e-2",
        unit="points",
        holds=Range(low=0),
        needs=(*needs(2, TO_CRITICAL), *needs(256, TO_CRITICAL)),
        measure=partial(k2_against_k256, statistic=np.subtract),
    ),
    Claim(
        name="k2_is_much_worse",
        where="4.1.2, Figure 1(b) caption",
        says="With K = 2 the performance is much worse.",
        decided_by="averaged test error at K = 2 relative to K = 256, at beta = 1e-3",
        unit="times",
        holds=Range(low=1.5),
        needs=(*needs(2, "beta=1e-3"), *needs(256, "beta=1e-3")),
        measure=partial(k2_against_k256, statistic=np.divide),
    ),
    Claim(
        name="k2_error_shoots_up",
        where="4.1.2, Figure 1(b)",
        says="The trends are the same with K = 2: the error shoots up above beta = 1e-2.",
        decided_by="one-sample test error at beta = 1e-1 relative to that at 1e-2",
        unit="times",
        holds=Range(low=2),
        needs=needs(2, AT_RISE),
        measure=partial(rise, K=2, predicted="class_1"),
    ),
    Claim(
        name="k2_overfits_at_small_beta",
        where="4.1.2, Figure 1(b)",
        says="The trends are the same with K = 2: small beta overfits.",
        decided_by="test minus training error (averaged), smallest over beta <= 1e-5",
        unit="points",
        holds=Range(low=0),
        needs=needs(2, SMALL),
        measure=partial(error_gap, K=2),
    ),
    Claim(
        name="k2_averaging_helps",
        where="4.1.2, Figure 1(b)",
        says="The trends are the same with K = 2: averaging helps for intermediate beta.",
        decided_by="one-sample minus averaged test error, at 1e-1, which the paper calls that",
        unit="points",
        holds=Range(low=0),
        needs=needs(2, "beta=1e-1"),
        measure=partial(gain_of_averaging, K=2),
    ),
    Claim(
        name="k2_train_information_rises",
        where="4.1.2",
        says="With K = 2 the IB curve has a similar shape: it rises on the training images.",
        decided_by="largest fall of I(Z,Y) from one beta to the next with more I(Z,X)",
        unit="bits",
        holds=Range(high=0.01),
        needs=needs(2),
        measure=partial(largest_drop_on_train, K=2),
    ),
    Claim(
        name="k2_larger_gap",
        where="4.1.2",
        says="With K = 2 the gap between training and testing in the IB curve is even larger.",
        decided_by="mean gap of I(Z,Y) over beta <= 1e-2, relative to that at K = 256",
        unit="times",
        holds=Range(low=1.1),
        needs=(*needs(2, TO_CRITICAL), *needs(256, TO_CRITICAL)),
        measure=gap_at_k2,
    ),
)
