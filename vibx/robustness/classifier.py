"""Finished runs as attacks see them: from one image in [0, 1] and a key to logits."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from vibx import config, store
from vibx.encodings import Deterministic, DiagonalGaussian, Encoding, FullCovarianceGaussian
from vibx.networks import VIB
from vibx.training.state import model_definition
from vibx.training.weights import read_weights

JITTER = 1e-6  # of the total variance of the logits: above float32's rounding of a product
TINY = 1e-30
CHUNK = 256  # images at a time; bounds memory

Images = Float[Array, "n pixels"]
Logits = Callable[[dict, Float[Array, "pixels"], Key[Array, ""]], Float[Array, "classes"]]


def classifier_of(run: store.StoredRun, samples: int | None) -> jax.tree_util.Partial:
    """A finished run's model as `classifier`.

    Raises:
      RunError: its weights are not there.
    """
    cfg = config.parse_config(run.record["config"])
    parameters = read_weights(run)
    return classifier(model_definition(cfg), parameters, samples=samples)


def classifier(
    definition: nnx.GraphDef, parameters: dict[str, Any], *, samples: int | None
) -> jax.tree_util.Partial:
    """A model as a function of one image in [0, 1] and a key, with its weights bound.

    A jitted function can take it as an argument, and is compiled once for all weights of a model.

    Args:
        definition: The model without its weights.
        parameters: Its weights.
        samples: Samples of z over which probabilities are averaged, or None for the mean of z
            (mean mode, section 4.2.3). A deterministic model has nothing to sample.

    Returns:
        (Float[pixels], key) -> Float[classes]: the logits of a deterministic model, or at the
        mean of z; else the log of the averaged probabilities, which do not underflow.
    """
    return jax.tree_util.Partial(logits_of(definition, samples), parameters)


@functools.cache  # one function per model: jit compares functions by identity
def logits_of(definition: nnx.GraphDef, samples: int | None) -> Logits:
    """`classifier` before the weights are bound."""

    def logits(parameters: dict, x: Float[Array, "pixels"], key: Key[Array, ""]) -> Array:
        model = nnx.merge(definition, parameters)
        encoding = model.encoder((x - 0.5) * 2)  # the range of vibx.data.scale
        if samples is None or isinstance(encoding, Deterministic):
            return model.decoder(encoding.mean)
        log_q = jax.nn.log_softmax(sample_logits(model, encoding, key, samples))
        return jax.nn.logsumexp(log_q, axis=0) - math.log(samples)

    return logits


class GaussianLogits(NamedTuple):
    """The logits of one image, or of n: N(mean, A A')."""

    mean: Float[Array, "*n classes"]
    A: Float[Array, "*n classes K"]


def logits_of_images(run: store.StoredRun, images: Images) -> GaussianLogits | None:
    """The distribution of a finished run's logits for images in [0, 1]; None if not Gaussian.

    Raises:
      RunError: its weights are not there.
    """
    cfg = config.parse_config(run.record["config"])
    return gaussian_logits(model_definition(cfg), read_weights(run), images)


@functools.partial(jax.jit, static_argnums=0)
def gaussian_logits(
    definition: nnx.GraphDef, parameters: dict[str, Any], images: Images
) -> GaussianLogits | None:
    """`logits_of_images` of a model."""
    model = nnx.merge(definition, parameters)

    def of_image(x: Float[Array, "pixels"]) -> GaussianLogits | None:
        encoding = model.encoder((x - 0.5) * 2)
        A = factor_of_logits(model, encoding)
        return None if A is None else GaussianLogits(model.decoder(encoding.mean), A)

    return jax.lax.map(of_image, images, batch_size=CHUNK)


def factor_of_logits(model: VIB, encoding: Encoding) -> Float[Array, "classes K"] | None:
    """A with covariance A A' of the logits of one image's z; None if they are not Gaussian."""
    if model.decoder.hidden:
        return None
    return logit_factor(encoding, model.decoder.head.kernel[...])


def sample_logits(
    model: VIB, encoding: Encoding, key: Key[Array, ""], samples: int
) -> Float[Array, "samples classes"]:
    """Logits of samples of one image's z.

    A linear decoder W'z + b makes them Gaussian, N(W' mean + b, A A') with A = W'L, where
    p(z|x) = N(mean, L L'). Then they are drawn themselves: a normal for each class instead of K.
    """
    A = factor_of_logits(model, encoding)
    if A is None or A.shape[1] <= A.shape[0]:
        return model.decoder(encoding.sample(key, samples))
    epsilon = jax.random.normal(key, (samples, len(A)))
    return model.decoder(encoding.mean) + epsilon @ square_factor(A).T


@functools.singledispatch
def logit_factor(encoding: Encoding, W: Float[Array, "K classes"]) -> Array | None:
    """A with covariance A A' of the logits W'z, float[classes, K]; None if z is not Gaussian."""
    return None


@logit_factor.register
def _(encoding: DiagonalGaussian, W: Float[Array, "K classes"]) -> Array:
    return W.T * encoding.scale


@logit_factor.register
def _(encoding: FullCovarianceGaussian, W: Float[Array, "K classes"]) -> Array:
    return W.T @ encoding.cholesky


def square_factor(A: Float[Array, "classes K"]) -> Float[Array, "classes classes"]:
    """A lower-triangular F with F F' = A A' + jitter, the jitter `JITTER` of its trace.

    The jitter keeps value and gradient finite where A A' is singular. Dividing by the largest
    entry keeps squares from underflowing; F is homogeneous in A, so it has no gradient.
    """
    size = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(A)), TINY))
    covariance = (A / size) @ (A / size).T
    jitter = JITTER * jnp.maximum(jnp.trace(covariance), 1)
    return size * jnp.linalg.cholesky(covariance + jitter * jnp.eye(len(A)))
