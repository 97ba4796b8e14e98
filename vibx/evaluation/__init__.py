"""Errors, rate and distortion of a model on a set of images."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from vibx.data import Images, scale
from vibx.encodings import Point
from vibx.information import bits, izx_upper, izy_lower
from vibx.networks import VIB
from vibx.objectives import cross_entropy

BATCH = 1000  # images evaluated at once; bounds memory


class Predictions(NamedTuple):
    """Per image: predicted classes, and information terms in nats. rate is None without one."""

    class_1: Int[Array, "n"]
    class_mc: Int[Array, "n"]
    class_mean: Int[Array, "n"]
    log_probability_mc: Float[Array, "n"]
    distortion: Float[Array, "n"]
    rate: Float[Array, "n"] | None


def predict(
    model: VIB, x: Float[Array, "784"], y: Int[Array, ""], key: Key[Array, ""], *, mc_samples: int
) -> Predictions:
    """Predictions for one image, from `mc_samples` samples of z and from its mean.

    1-shot is the first sample. Monte Carlo averages probabilities (section 4.1.1):
    p(y|x) = 1/S sum_s q(y|z_s). The distortion is the mean of -log q(y|z_s).
    """
    encoding = model.encoder(x)
    samples = 1 if isinstance(encoding, Point) else mc_samples
    log_q = jax.nn.log_softmax(model.decoder(encoding.sample(key, samples)))
    log_p = jax.nn.logsumexp(log_q, axis=0) - math.log(samples)
    return Predictions(
        class_1=jnp.argmax(log_q[0]),
        class_mc=jnp.argmax(log_p),
        class_mean=jnp.argmax(model.decoder(encoding.mean)),
        log_probability_mc=log_p[y],
        distortion=cross_entropy(log_q, y).mean(),
        rate=None if isinstance(encoding, Point) else model.marginal.rate(encoding),
    )


@functools.partial(jax.jit, static_argnames=("definition", "mc_samples"))
def predict_all(
    definition: nnx.GraphDef,
    parameters: dict,
    images: Images,
    key: Key[Array, ""],
    *,
    mc_samples: int,
) -> Predictions:
    """Predictions for all images; an image's noise depends on the key and its row alone."""
    model = nnx.merge(definition, parameters)

    def one(image: tuple[Int[Array, ""], Images]) -> Predictions:
        row, (pixels, label) = image
        key_of_row = jax.random.fold_in(key, row)
        return predict(model, scale(pixels), jnp.asarray(label), key_of_row, mc_samples=mc_samples)

    rows = jnp.arange(images.labels.shape[0])
    return jax.lax.map(one, (rows, images), batch_size=BATCH)


def summarise(
    predictions: Predictions, labels: npt.ArrayLike, *, mc_samples: int
) -> dict[str, Any]:
    """The section of metrics.json for one set of images; errors are fractions."""
    labels = np.asarray(labels)
    distortion = mean(predictions.distortion)
    rate = None if predictions.rate is None else mean(predictions.rate)
    return {
        "n": len(labels),
        "error_1": mean(predictions.class_1 != labels),
        "error_mc": mean(predictions.class_mc != labels),
        "mc_samples": 1 if rate is None else mc_samples,
        "error_mean": mean(predictions.class_mean != labels),
        "distortion_bits": bits(distortion),
        "rate_bits": None if rate is None else bits(rate),
        "izy_lower_bits": bits(izy_lower(labels, distortion)),
        "izx_upper_bits": None if rate is None else bits(izx_upper(rate)),
        "nll_mc_bits": bits(-mean(predictions.log_probability_mc)),
    }


def mean(values: npt.ArrayLike) -> float:
    """Mean over images, in float64."""
    return float(np.asarray(values, np.float64).mean())
