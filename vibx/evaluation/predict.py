"""What a model says of a set of images, and the section of metrics.json about it."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from vibx.data import Images
from vibx.data.device import scale
from vibx.evaluation.measure import PredictiveSamples, measures
from vibx.networks import VIB
from vibx.objectives import cross_entropy

BATCH = 1000  # images evaluated at once; bounds memory

Values = dict[str, Any]  # of each image, by measure


def predictive_samples(
    model: VIB,
    x: Float[Array, "pixels"],
    y: Int[Array, ""],
    key: Key[Array, ""],
    *,
    mc_samples: int,
) -> PredictiveSamples:
    """What a model says of one image with `mc_samples` samples of z, and at its mean."""
    encoding = model.encoder(x)
    n = 1 if model.marginal is None else mc_samples
    z = encoding.sample(key, n)
    log_q = jax.nn.log_softmax(model.decoder(z))
    return PredictiveSamples(
        log_q=log_q,
        log_p=jax.nn.logsumexp(log_q, axis=0) - math.log(n),
        logits_at_mean=model.decoder(encoding.mean),
        cross_entropy=cross_entropy(log_q, y),
        rate=None if model.marginal is None else model.marginal.rate(encoding, z),
        label=y,
    )


@functools.partial(jax.jit, static_argnames=("definition", "mc_samples"))
def predict(
    definition: nnx.GraphDef,
    parameters: dict,
    images: Images,
    key: Key[Array, ""],
    *,
    mc_samples: int,
) -> Values:
    """Each measure's value of each image; an image's noise depends on the key and its row alone."""
    model = nnx.merge(definition, parameters)

    def one(image: tuple[Int[Array, ""], Images]) -> Values:
        row, (pixels, label) = image
        samples = predictive_samples(
            model,
            scale(pixels),
            jnp.asarray(label),
            jax.random.fold_in(key, row),
            mc_samples=mc_samples,
        )
        return {measure.name: measure.per_image(samples) for measure in measures()}

    rows = jnp.arange(images.labels.shape[0])
    return jax.lax.map(one, (rows, images), batch_size=BATCH)


def summarise(values: Values, labels: npt.ArrayLike, *, mc_samples: int) -> dict[str, Any]:
    """The section of metrics.json for one set of images; errors are fractions."""
    labels = np.asarray(labels)
    found = {m.name: m.of_images(values[m.name], labels) for m in measures()}
    averaged = 1 if values["rate_bits"] is None else mc_samples  # a deterministic model's is one
    return {"n": len(labels), "mc_samples": averaged, **found}
