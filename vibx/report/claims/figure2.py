"""Claims of Figure 2: the embedding at K = 2 and the paper's three betas."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vibx import store
from vibx.report import published, statistics
from vibx.report.claims import table1
from vibx.report.drawings.figure2 import entropy_bits
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
from vibx.report.runs import scientific
from vibx.report.statistics import BOOTSTRAP_SEED
from vibx.store import StoredRun

Embedding = dict[str, npt.NDArray[Any]]

GOOD, INTERMEDIATE, LARGE = published.FIGURE_2  # betas of the three panels
CLASSES = 10


def error(found: Found, quantity: str) -> Measured:
    """A test error of a panel's runs."""
    sections = [run.record["test"] for run in found["figure2"]]
    return mean_over([section[quantity] for section in sections], sections[0]["n"])


def gain_of_averaging(found: Found) -> Measured:
    """The one-sample error minus the averaged one."""
    wrong = [wrong_answers(found["figure2"], predicted) for predicted in ("class_1", "class_mc")]
    return compared(wrong, lambda errors: errors[..., 0] - errors[..., 1])


def error_of_intermediate(found: Found) -> Measured:
    """The averaged test error at the intermediate beta relative to that at the good one."""
    betas = by_beta(found["figure2"])
    wrong = [wrong_answers(betas[beta].values(), "class_mc") for beta in (INTERMEDIATE, GOOD)]
    return compared(wrong, lambda errors: errors[..., 0] / errors[..., 1])


def information_about_class(found: Found) -> Measured:
    """I(Z,Y) on the test images."""
    return mean_of_seeds([run.record["test"]["izy_lower_bits"] for run in found["figure2"]])


# Embeddings: means and Cholesky factors of p(z|x) of 1,000 test images, and the decoder


def read(run: StoredRun) -> Embedding:
    """What a run left of its embedding."""
    return store.read_arrays(run, store.EMBEDDING)


def widths(embedding: Embedding) -> Array:
    """The standard deviation of each p(z|x), a geometric mean over its axes."""
    return np.sqrt(np.abs(np.linalg.det(embedding["cholesky"])))


def class_means(embedding: Embedding) -> Array:
    """The mean of each class's posterior means, [classes, 2]."""
    labels, means = embedding["labels"], embedding["means"]
    return np.stack([means[labels == label].mean(axis=0) for label in np.unique(labels)])


def width_within_class(embedding: Embedding) -> float:
    """The standard deviation of posterior means in their class, a geometric mean over the axes."""
    labels, means = embedding["labels"], embedding["means"]
    deviations = means - class_means(embedding)[np.unique(labels, return_inverse=True)[1]]
    return float(np.linalg.det(np.cov(deviations.T, bias=True)) ** 0.25)


def overlap(embedding: Embedding, weights: Array) -> Array:
    """The variance within classes, of the posteriors and of their means, relative to between.

    Args:
      embedding: of n images.
      weights: how often each image counts, [..., n].
    """
    labels, means = embedding["labels"], embedding["means"]
    of_class = (labels[:, None] == np.unique(labels)).astype(float)  # [n, classes]
    counts = weights @ of_class
    sums = np.stack([weights @ (of_class * axis[:, None]) for axis in means.T])
    of_posteriors = weights @ np.sum(embedding["cholesky"] ** 2, axis=(1, 2))
    of_means = weights @ np.sum(means**2, axis=1)
    of_centres = np.sum(sums**2 / np.maximum(counts, 1), axis=(0, -1))
    of_centre = np.sum(sums.sum(axis=-1) ** 2, axis=0) / counts.sum(axis=-1)
    return (of_posteriors + of_means - of_centres) / (of_centres - of_centre)


def entropy_between(embedding: Embedding) -> float:
    """The mean entropy of q(y|z) in bits halfway from each class to the nearest other one."""
    centres = class_means(embedding)
    distances = np.linalg.norm(centres[:, None] - centres, axis=-1)
    np.fill_diagonal(distances, math.inf)
    halfway = (centres + centres[distances.argmin(axis=1)]) / 2
    return float(np.mean([entropy_bits(embedding, z[:1], z[1:])[0, 0] for z in halfway]))


def width_ratio(found: Found, beta: float, to: float) -> Measured:
    """How many times wider the posteriors are, medians over the images, than at another beta."""
    betas = by_beta(found["figure2"])
    values, base = (np.stack([widths(read(run)) for run in betas[b].values()]) for b in (beta, to))
    ratio = statistics.ratio_of_medians(values, to=base, seed=BOOTSTRAP_SEED)
    return Measured(ratio.value, ratio.interval, min(len(values), len(base)), values.shape[1])


def smallest_widening(found: Found) -> Measured:
    """How many times wider the posteriors are than at the next smaller beta, at least."""
    steps = pairwise(published.FIGURE_2)
    ratios = [width_ratio(found, beta, to) for to, beta in steps]
    return worst(ratios, lambda ratio: ratio.value)


def smallest_growth_of_overlap(found: Found) -> Measured:
    """How many times larger the overlap is than at the next smaller beta, at least."""
    steps = [
        [(read(run[to]), read(run[beta])) for run in by_seed(found["figure2"])]
        for to, beta in pairwise(published.FIGURE_2)
    ]
    return worst(map(growth_of_overlap, steps), lambda growth: growth.value)


def growth_of_overlap(pairs: list[tuple[Embedding, Embedding]]) -> Measured:
    """How many times larger the overlap is in the second of each seed's two embeddings."""
    n = len(pairs[0][0]["labels"])
    once = np.ones(n)
    growth = mean_of_seeds([float(overlap(b, once) / overlap(a, once)) for a, b in pairs])
    if growth.interval is None:
        ((before, after),) = pairs
        rng = np.random.default_rng(BOOTSTRAP_SEED)
        resampled = []
        for _ in range(0, statistics.RESAMPLES, statistics.CHUNK):
            chosen = rng.integers(n, size=(statistics.CHUNK, n))
            own = chosen + n * np.arange(len(chosen))[:, None]  # no two resamples share a number
            weights = np.bincount(own.ravel(), minlength=own.size).reshape(own.shape).astype(float)
            resampled.append(overlap(after, weights) / overlap(before, weights))
        growth = growth._replace(interval=statistics.percentiles(np.concatenate(resampled)))
    return growth._replace(images=n)


def of_embeddings(
    found: Found, experiment: str, quantity: Callable[[Embedding], float]
) -> Measured:
    """A quantity of embeddings, at the beta where it is smallest."""
    betas = by_beta(found[experiment]).values()
    return worst(
        [mean_of_seeds([quantity(read(run)) for run in seeds.values()]) for seeds in betas],
        lambda measured: measured.value,
    )


def width_in_class_widths(embedding: Embedding) -> float:
    """The median width of posteriors relative to the spread of their means in a class."""
    return float(np.median(widths(embedding))) / width_within_class(embedding)


def length_in_embedding_widths(embedding: Embedding) -> float:
    """The median length of posteriors, along their longer axis, relative to their means' spread."""
    spread = np.linalg.det(np.cov(embedding["means"].T, bias=True)) ** 0.25
    return float(np.median(np.linalg.norm(embedding["cholesky"], ord=2, axis=(1, 2))) / spread)


def number(panel: str, beta: float, quantity: str, error_published: float) -> Claim:
    """The claim of an error in a panel's caption."""
    percent = 100 * error_published
    low, high = (round(percent * (1 + sign * table1.TOLERANCE), 2) for sign in (-1, 1))
    short = quantity.replace("error", "err")
    return Claim(
        name=f"figure2{panel}_{short}",
        where=f"4.1.2, Figure 2({panel}) caption",
        says=f"At beta = {text(beta)}, K = 2, {short} is {percent:.2f}%.",
        decided_by=f"test {short}, within {table1.TOLERANCE:.0%} of the published number",
        unit="%",
        holds=Range(low, high),
        needs=at(beta),
        measure=partial(error, quantity=quantity),
    )


def text(beta: float) -> str:
    """A beta as the paper and the shell have it."""
    return scientific(beta).removesuffix("e0")


def at(*betas: float) -> tuple[Needed, ...]:
    """Runs of panels."""
    return (Needed("figure2", f"beta={','.join(map(text, betas))}"),)


CLAIMS = (
    Claim(
        name="sigma_vanishes",
        where="4",
        says="As beta goes to 0 so does the covariance: the network becomes nearly deterministic.",
        decided_by=(
            "length of posteriors at beta = 0, K = 2, relative to the spread of their means"
        ),
        unit="times",
        holds=Range(high=0.05),
        needs=(Needed("figure1b", "beta=0"),),
        measure=partial(of_embeddings, experiment="figure1b", quantity=length_in_embedding_widths),
    ),
    *(
        number(panel, beta, quantity, error_published)
        for panel, (beta, errors) in zip("abc", published.FIGURE_2.items(), strict=True)
        for quantity, error_published in zip(("error_mc", "error_1"), errors, strict=True)
    ),
    Claim(
        name="one_sample_suffices",
        where="4.1.2, Figure 2 caption",
        says="For good beta a single sample suffices.",
        decided_by="one-sample minus averaged test error at beta = 1e-3",
        unit="points",
        holds=Range(high=0.2),
        needs=at(GOOD),
        measure=gain_of_averaging,
    ),
    Claim(
        name="posteriors_widen",
        where="4.1.2, Figure 2",
        says=(
            "As less information passes through (larger beta), the posterior covariances become "
            "larger."
        ),
        decided_by="width of posteriors relative to the next smaller beta, the smaller of the two",
        unit="times",
        holds=Range(low=1),
        needs=at(GOOD, INTERMEDIATE, LARGE),
        measure=smallest_widening,
    ),
    Claim(
        name="posteriors_widen_as_printed",
        where="4.1.2, Figure 2",
        says="The same as it is printed: as beta decreases, the covariances become larger.",
        decided_by="width of posteriors at beta = 1e-3 relative to that at 1e-1",
        unit="times",
        holds=Range(low=1),
        needs=at(GOOD, INTERMEDIATE),
        measure=partial(width_ratio, beta=GOOD, to=INTERMEDIATE),
    ),
    Claim(
        name="classes_overlap",
        where="4.1.2, Figure 2",
        says="And the classes start to overlap.",
        decided_by=(
            "variance within relative to that between classes, relative to the next smaller beta, "
            "the smaller of the two"
        ),
        unit="times",
        holds=Range(low=1),
        needs=at(GOOD, INTERMEDIATE, LARGE),
        measure=smallest_growth_of_overlap,
    ),
    Claim(
        name="collapse",
        where="4.1.2, Figure 2(c)",
        says="Past a critical beta the encoding collapses: essentially all class information goes.",
        decided_by="I(Z,Y) on the test images at beta = 1, a tenth of log2(10) or less",
        unit="bits",
        holds=Range(high=round(math.log2(CLASSES) / 10, 2)),
        needs=at(LARGE),
        measure=information_about_class,
    ),
    Claim(
        name="uncertain_between_classes",
        where="4.1.2, Figure 2",
        says="Between the classes' embeddings q(y|z) is fairly uncertain.",
        decided_by=(
            "entropy halfway from each class to the nearest other, mean over classes, the smaller "
            "of beta = 1e-3 and 1e-1"
        ),
        unit="bits",
        holds=Range(low=0.5),
        needs=at(GOOD, INTERMEDIATE),
        measure=partial(of_embeddings, experiment="figure2", quantity=entropy_between),
    ),
    Claim(
        name="intermediate_beta_still_good",
        where="4.1.2, Figure 2(b)",
        says="For intermediate beta (1e-1) predictions are still good.",
        decided_by="averaged test error relative to that at beta = 1e-3",
        unit="times",
        holds=Range(high=1.25),
        needs=at(GOOD, INTERMEDIATE),
        measure=error_of_intermediate,
    ),
    Claim(
        name="images_indistinguishable",
        where="4.1.2, Figure 2(b)",
        says="There it is very uncertain where an image maps to: it is hard to tell which it is.",
        decided_by="width of posteriors relative to the spread of their means in a class",
        unit="times",
        holds=Range(low=1),
        needs=at(INTERMEDIATE),
        measure=partial(of_embeddings, experiment="figure2", quantity=width_in_class_widths),
    ),
)
