"""Models as attacks see them: from one image in [0, 1] and a key to logits."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from vibx.encodings import DiagonalGaussian, FullCovarianceGaussian, Gaussian, Point
from vibx.networks import CLASSES, VIB

JITTER = 1e-6  # of the total variance of the logits: above float32's rounding of a product
TINY = 1e-30

Logits = Callable[[dict, Float[Array, "784"], Key[Array, ""]], Float[Array, "10"]]


def classifier(
    definition: nnx.GraphDef, parameters: dict[str, Any], *, samples: int | None
) -> jax.tree_util.Partial:
    """A model as a function of one image in [0, 1] and a key, with its weights bound.

    A jitted function can take it as an argument, and is compiled once for all weights of a model.

    Args:
        definition: The model without its weights.
        parameters: Its weights.
        samples: Samples of z over which probabilities are averaged, or None for the mean of z.
            A deterministic model has nothing to sample.

    Returns:
        (Float[784], key) -> Float[10]: the logits of a deterministic model, or at the mean of z;
        else the log of the averaged probabilities, which do not underflow.
    """
    return jax.tree_util.Partial(logits_of(definition, samples), parameters)


@functools.cache  # one function per model: jit compares functions by identity
def logits_of(definition: nnx.GraphDef, samples: int | None) -> Logits:
    """`classifier` before the weights are bound."""

    def logits(parameters: dict, x: Float[Array, "784"], key: Key[Array, ""]) -> Array:
        model = nnx.merge(definition, parameters)
        encoding = model.encoder((x - 0.5) * 2)  # the range of vibx.data.scale
        if samples is None or isinstance(encoding, Point):
            return model.decoder(encoding.mean)
        log_q = jax.nn.log_softmax(sample_logits(model, encoding, key, samples))
        return jax.nn.logsumexp(log_q, axis=0) - math.log(samples)

    return logits


def sample_logits(
    model: VIB, encoding: Gaussian, key: Key[Array, ""], samples: int
) -> Float[Array, "samples 10"]:
    """Logits of samples of one image's z.

    A linear decoder W'z + b makes them Gaussian, N(W' mean + b, A A') with A = W'L where
    p(z|x) = N(mean, L L'). Then they are drawn themselves: 10 normals each instead of K.
    """
    if model.decoder.hidden or encoding.mean.size <= CLASSES:
        return model.decoder(encoding.sample(key, samples))
    W = model.decoder.head.kernel[...]
    match encoding:
        case DiagonalGaussian():
            A = W.T * encoding.scale
        case FullCovarianceGaussian():
            A = W.T @ encoding.cholesky
    epsilon = jax.random.normal(key, (samples, CLASSES))
    return model.decoder(encoding.mean) + epsilon @ square_factor(A).T


def square_factor(A: Float[Array, "10 K"]) -> Float[Array, "10 10"]:
    """A lower-triangular F with F F' = A A' + jitter, the jitter `JITTER` of its trace.

    The jitter keeps value and gradient finite where A A' is singular. Dividing by the largest
    entry keeps squares from underflowing; F is homogeneous in A, so it has no gradient.
    """
    size = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(A)), TINY))
    covariance = (A / size) @ (A / size).T
    jitter = JITTER * jnp.maximum(jnp.trace(covariance), 1)
    return size * jnp.linalg.cholesky(covariance + jitter * jnp.eye(len(A)))
