"""Exact answers: the probability that a Gaussian's largest component is a given one.

With a linear decoder and a Gaussian encoding the logits of an image are Gaussian: the probability
that one sample of z is answered with a class is an orthant probability, and needs no votes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]
from scipy.stats import qmc  # type: ignore[import-untyped]

RANDOMISATIONS = 16  # of the quasi-random points; their spread is the error
POINTS = 512  # of each, a power of two
JITTER = 1e-10  # of the mean variance: a standard deviation 1e-5 times as large
TINY = 1e-200  # a variance that keeps a division by its root finite
FAR = 40.0  # standard deviations beyond which nothing is


class Probability(NamedTuple):
    """Probabilities, and the standard errors of their quasi Monte Carlo estimates."""

    value: Float[np.ndarray, "n"]
    error: Float[np.ndarray, "n"]


def goal_probability(
    means: Float[np.ndarray, "n classes"],
    factors: Float[np.ndarray, "n classes K"],
    goals: Int[np.ndarray, "n"],
    *,
    targeted: bool,
) -> Probability:
    """The probability that an answer of one sample of z is at the goal of an image.

    Args:
        means: Of the logits of each image.
        factors: A with covariance A A' of these logits.
        goals: The class that answers shall have or, if not `targeted`, shall not have.
        targeted: Whether they shall have it.

    Returns:
        The probabilities and their errors, for each image. All images share the random points: the
        error of a mean over images is at most the mean of their errors.
    """
    classes = means.shape[1]
    uniforms = random_points(classes - 2)
    estimates = np.stack(
        [
            argmax_estimates(mean, factor, goal, uniforms)
            for mean, factor, goal in zip(means, factors, goals, strict=True)
        ]
    )
    value = estimates.mean(axis=1)
    error = estimates.std(axis=1, ddof=1) / np.sqrt(RANDOMISATIONS)
    return Probability(value if targeted else 1 - value, error)


def random_points(dimensions: int) -> Float[np.ndarray, "dimensions randomisations points"]:
    """Scrambled Sobol points in the unit cube, scrambled anew in each randomisation."""
    shape = (RANDOMISATIONS, POINTS)
    if dimensions == 0:
        return np.empty((0, *shape))
    sets = [qmc.Sobol(dimensions, seed=r).random(POINTS) for r in range(RANDOMISATIONS)]
    return np.moveaxis(np.stack(sets), 2, 0)


def argmax_estimates(
    mean: Float[np.ndarray, "classes"],
    factor: Float[np.ndarray, "classes K"],
    goal: int,
    uniforms: Float[np.ndarray, "dimensions randomisations points"],
) -> Float[np.ndarray, "randomisations"]:
    """P(argmax Z = goal) for Z ~ N(mean, factor factor'), from each randomisation.

    The leads Z_goal - Z_i of all other classes are positive: Genz's sequence of conditional
    probabilities (1992), the least likely lead first.
    """
    others = np.arange(len(mean)) != goal
    lead = np.float64(mean[goal]) - mean[others]
    A = factor[goal].astype(np.float64) - factor[others]
    deviation = np.sqrt(np.sum(A**2, axis=1) + TINY)
    order = np.argsort(lead / deviation)
    lead, A = lead[order], A[order]
    covariance = A @ A.T
    jitter = JITTER * np.trace(covariance) / len(lead) + TINY
    L = np.linalg.cholesky(covariance + jitter * np.eye(len(lead)))

    normals = np.empty((len(lead), *uniforms.shape[1:]))
    product = np.ones(uniforms.shape[1:])
    for i, given in enumerate(lead):
        expected = given + np.tensordot(L[i, :i], normals[:i], axes=1)
        probability = ndtr(expected / L[i, i])
        product *= probability
        if i < len(uniforms):  # a normal above -expected / L[i, i]
            normals[i] = np.clip(-ndtri(uniforms[i] * probability), -FAR, FAR)
    return product.mean(axis=1)
