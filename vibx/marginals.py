"""Variational marginals r(z) of equation 14, and the rate of an encoding under them.

To add one: its schema in `vibx/config/schemas.py`, a subclass of `Marginal` registered for it
here, and its yaml. Its `nnx.Param` are trained with the model.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vibx.choices import found_by_schema
from vibx.config import schemas
from vibx.encodings import (
    LOG_2PI,
    Deterministic,
    DiagonalGaussian,
    Encoding,
    FullCovarianceGaussian,
)

Divergence = Callable[[Any, Any], Float[Array, "*batch"]]

CLOSED_FORMS: dict[tuple[type, type], Divergence] = {}


class Marginal(nnx.Module):
    """r(z)."""

    def log_prob(self, z: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
        """Log r(z) in nats."""
        raise NotImplementedError

    def rate(self, encoding: Encoding, z: Float[Array, "n *batch K"]) -> Float[Array, "*batch"]:
        """KL[p(z|x), r(z)] in nats: the second term of equation 17.

        In closed form for a pair that has one, else the mean of log p(z|x) - log r(z) over the
        samples z of p(z|x).
        """
        closed_form = CLOSED_FORMS.get((type(encoding), type(self)))
        if closed_form:
            return closed_form(encoding, self)
        assert not isinstance(encoding, Deterministic)  # it has no density, and no rate
        return jnp.mean(encoding.log_prob(z) - self.log_prob(z), axis=0)


@found_by_schema
def marginal(schema: object, K: int, *, rngs: nnx.Rngs) -> Marginal | None:
    """The marginal that a schema stands for; None where there is no rate."""


@marginal.register(type(None))
def _(_: None, K: int, *, rngs: nnx.Rngs) -> None:
    return None


@marginal.register(schemas.StandardNormal)
class StandardNormal(Marginal):
    """r(z) = N(z | 0, I), fixed."""

    def __init__(self, schema: schemas.StandardNormal, K: int, *, rngs: nnx.Rngs):
        pass

    def log_prob(self, z: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
        """Log r(z) in nats."""
        return -jnp.sum(z**2 + LOG_2PI, axis=-1) / 2


def closed_form(
    encoding: type[Encoding], marginal: type[Marginal]
) -> Callable[[Divergence], Divergence]:
    """Register KL[p(z|x), r(z)] of a pair of families."""

    def register(divergence: Divergence) -> Divergence:
        CLOSED_FORMS[encoding, marginal] = divergence
        return divergence

    return register


@closed_form(DiagonalGaussian, StandardNormal)
def diagonal_to_standard_normal(p: DiagonalGaussian, _: StandardNormal) -> Float[Array, "*batch"]:
    """KL[N(mean, diag(scale^2)), N(0, I)] in nats."""
    terms = p.mean**2 + p.scale**2 - 1 - 2 * jnp.log(p.scale)
    return jnp.sum(terms, axis=-1) / 2


@closed_form(FullCovarianceGaussian, StandardNormal)
def full_covariance_to_standard_normal(
    p: FullCovarianceGaussian, _: StandardNormal
) -> Float[Array, "*batch"]:
    """KL[N(mean, L L^T), N(0, I)] in nats; tr(L L^T) is the sum of squares of L."""
    trace = jnp.sum(p.cholesky**2, axis=(-2, -1))
    terms = p.mean**2 - 1 - 2 * jnp.log(p.diagonal)
    return (trace + jnp.sum(terms, axis=-1)) / 2
