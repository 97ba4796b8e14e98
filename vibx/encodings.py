"""Stochastic encodings p(z|x): how to sample them, and their density.

An encoding is made from the encoder's linear outputs for one image or a batch of them; all
leading axes are batch axes.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vibx.choices import found_by_schema
from vibx.config import schemas

LOG_2PI = math.log(2 * math.pi)


def positive_softplus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(1 + e^x), at least the smallest normal number.

    At beta = 0 nothing keeps a scale from vanishing, and 0 times an infinite rate is no number.
    """
    return jnp.maximum(jax.nn.softplus(x), jnp.finfo(x.dtype).tiny)


class DiagonalGaussian(NamedTuple):
    """p(z|x) = N(z | mean, diag(scale^2)): section 4.1.1."""

    mean: Float[Array, "*batch K"]
    scale: Float[Array, "*batch K"]

    @staticmethod
    def size(K: int) -> int:
        """Number of linear outputs that parameterise one encoding."""
        return 2 * K

    @classmethod
    def from_outputs(cls, outputs: Float[Array, "*batch outputs"], *, scale_shift: float) -> Self:
        """Scale = softplus(rho + scale_shift); the 2K outputs are the mean, then rho."""
        mean, rho = jnp.split(outputs, 2, axis=-1)
        return cls(mean, positive_softplus(rho + scale_shift))

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n *batch K"]:
        """Reparameterised samples (section 3): z = mean + scale * epsilon, epsilon ~ N(0, I)."""
        epsilon = jax.random.normal(key, (n, *self.mean.shape))
        return self.mean + self.scale * epsilon

    def log_prob(self, z: Float[Array, "*#batch K"]) -> Float[Array, "*#batch"]:
        """Log p(z|x) in nats."""
        epsilon = (z - self.mean) / self.scale
        return -jnp.sum(epsilon**2 / 2 + jnp.log(self.scale) + LOG_2PI / 2, axis=-1)


class FullCovarianceGaussian(NamedTuple):
    """p(z|x) = N(z | mean, L L^T) with a lower-triangular factor L: section 4.1.2, appendix B."""

    mean: Float[Array, "*batch K"]
    cholesky: Float[Array, "*batch K K"]

    @staticmethod
    def size(K: int) -> int:
        """Number of linear outputs that parameterise one encoding: K(K + 3)/2."""
        return K * (K + 3) // 2

    @classmethod
    def from_outputs(cls, outputs: Float[Array, "*batch outputs"], *, scale_shift: float) -> Self:
        """L = diag(softplus(rho + scale_shift)) + strictly lower part (appendix B).

        The K(K + 3)/2 outputs are the mean, then rho, then the strictly lower triangle by rows.
        """
        K = (math.isqrt(9 + 8 * outputs.shape[-1]) - 3) // 2
        mean, rho, lower = jnp.split(outputs, [K, 2 * K], axis=-1)
        rows, columns = jnp.tril_indices(K, k=-1)
        diagonal = positive_softplus(rho + scale_shift)
        cholesky = diagonal[..., None] * jnp.eye(K, dtype=outputs.dtype)
        return cls(mean, cholesky.at[..., rows, columns].set(lower))

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n *batch K"]:
        """Reparameterised samples (section 3): z = mean + L epsilon, epsilon ~ N(0, I)."""
        epsilon = jax.random.normal(key, (n, *self.mean.shape))
        return self.mean + jnp.einsum("...ij,...j->...i", self.cholesky, epsilon)

    def log_prob(self, z: Float[Array, "*#batch K"]) -> Float[Array, "*#batch"]:
        """Log p(z|x) in nats."""
        solve = jnp.vectorize(
            partial(jax.scipy.linalg.solve_triangular, lower=True), signature="(k,k),(k)->(k)"
        )
        epsilon = solve(self.cholesky, z - self.mean)
        return -jnp.sum(epsilon**2 / 2 + jnp.log(self.diagonal) + LOG_2PI / 2, axis=-1)

    @property
    def diagonal(self) -> Float[Array, "*batch K"]:
        """The diagonal of L."""
        return jnp.diagonal(self.cholesky, axis1=-2, axis2=-1)


class Deterministic(NamedTuple):
    """The explicitly deterministic model: z = mean, no Gaussian layer (section 4)."""

    mean: Float[Array, "*batch K"]

    @staticmethod
    def size(K: int) -> int:
        """Number of linear outputs, z itself."""
        return K

    def sample(self, key: Key[Array, ""], n: int) -> Float[Array, "n *batch K"]:
        """Z itself, n times."""
        return jnp.broadcast_to(self.mean, (n, *self.mean.shape))


Gaussian = DiagonalGaussian | FullCovarianceGaussian
Encoding = Gaussian | Deterministic


class Parameterisation(NamedTuple):
    """How an encoder's linear outputs for an image become its encoding."""

    size: int
    encoding: Callable[[Float[Array, "*batch outputs"]], Encoding]


@found_by_schema
def parameterisation(bottleneck: object, K: int) -> Parameterisation:
    """The parameterisation that a bottleneck's schema stands for."""
    raise NotImplementedError


@parameterisation.register(schemas.Diagonal)
def _(bottleneck: schemas.Diagonal, K: int) -> Parameterisation:
    from_outputs = partial(DiagonalGaussian.from_outputs, scale_shift=bottleneck.scale_shift)
    return Parameterisation(DiagonalGaussian.size(K), from_outputs)


@parameterisation.register(schemas.FullCovariance)
def _(bottleneck: schemas.FullCovariance, K: int) -> Parameterisation:
    from_outputs = partial(FullCovarianceGaussian.from_outputs, scale_shift=bottleneck.scale_shift)
    return Parameterisation(FullCovarianceGaussian.size(K), from_outputs)


@parameterisation.register(schemas.Deterministic)
def _(_: schemas.Deterministic, K: int) -> Parameterisation:
    return Parameterisation(Deterministic.size(K), Deterministic)
