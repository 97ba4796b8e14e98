"""The two Gaussian encodings, drawn at random for tests."""

import functools

import jax
import numpy as np

from tests import tiny
from vibx.encodings import DiagonalGaussian, FullCovarianceGaussian, parameterisation

GAUSSIANS = {"diagonal": DiagonalGaussian, "full_covariance": FullCovarianceGaussian}


def random_encoding(name, K, *, batch=(), seed=0):
    """An encoding away from N(0, I), with a well-conditioned covariance."""
    draw = np.random.default_rng(seed)
    mean = draw.normal(size=(*batch, K))
    scale = np.exp(0.5 * draw.normal(size=(*batch, K)))
    if name == "diagonal":
        return DiagonalGaussian(mean, scale)
    lower = np.tril(draw.normal(size=(*batch, K, K)), k=-1) / np.sqrt(K)
    return FullCovarianceGaussian(mean, lower + scale[..., None] * np.eye(K))


def factor(encoding):
    """The Cholesky factor of an encoding's covariance."""
    if isinstance(encoding, DiagonalGaussian):
        return encoding.scale[..., None] * np.eye(encoding.scale.shape[-1])
    return encoding.cholesky


@functools.partial(jax.jit, static_argnums=(0, 2))
def from_outputs(name, outputs, scale_shift):
    """The encoding that a bottleneck's schema makes of an encoder's outputs."""
    schema = tiny.BOTTLENECKS[name](name=name, scale_shift=scale_shift)
    K = next(K for K in range(1, 100) if parameterisation(schema, K).size == outputs.shape[-1])
    return parameterisation(schema, K).encoding(outputs)


@functools.partial(jax.jit, static_argnums=2)
def sample(encoding, key, n):
    return encoding.sample(key, n)


@jax.jit
def log_prob(encoding, z):
    return encoding.log_prob(z)


@jax.jit
def rate(encoding):
    """Under N(0, I), in closed form: there are no samples."""
    return tiny.standard_normal().rate(encoding, None)
