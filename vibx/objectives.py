"""Training objectives, one value per image in nats: equation 17 and Table 1's regularisers.

To add one: its schema in `vibx/config/schemas.py`, a function registered for it here, and its yaml.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vibx.choices import found_by_schema
from vibx.config import schemas
from vibx.networks import VIB


class Terms(NamedTuple):
    """An objective and what it is made of, in nats. A deterministic model has no rate."""

    objective: Float[Array, "batch"]
    distortion: Float[Array, "batch"]
    rate: Float[Array, "batch"] | None


def cross_entropy(
    logits: Float[Array, "*batch classes"], labels: Int[Array, "*#batch"]
) -> Float[Array, "*batch"]:
    """-log q(y|z) in nats, from logits."""
    one_hot = jax.nn.one_hot(labels, logits.shape[-1])
    return -jnp.sum(jax.nn.log_softmax(logits) * one_hot, axis=-1)


@found_by_schema
def objective(
    schema: object,
    model: VIB,
    x: Float[Array, "batch pixels"],
    y: Int[Array, "batch"],
    *,
    key: Key[Array, ""],
    beta: Float[Array, ""] | float | None,
) -> Terms:
    """The objective that a schema stands for, of each image of a batch.

    Args:
      schema: says which, and has its numbers.
      model: with the weights that are trained.
      x: images in [-1, 1].
      y: their classes.
      key: of the step's noise.
      beta: weight of the rate, in nats per nat; None for a deterministic model.
    """
    raise NotImplementedError


@objective.register(schemas.VIB)
def vib(
    schema: schemas.VIB, model: VIB, x: Array, y: Array, *, key: Key[Array, ""], beta: Array
) -> Terms:
    """Equation 17: E[-log q(y|z)] + beta KL[p(z|x), r(z)]; equation 18 at beta = 0.

    The expectation is a mean over `train_samples` reparameterised samples.
    """
    encoding = model.encoder(x)
    assert model.marginal is not None  # Config refuses it
    z = encoding.sample(key, schema.train_samples)
    distortion = cross_entropy(model.decoder(z), y).mean(axis=0)
    rate = model.marginal.rate(encoding, z)
    return Terms(distortion + beta * rate, distortion, rate)


def deterministic_logits(model: VIB, x: Array, **dropout: object) -> Float[Array, "batch classes"]:
    """Logits of the explicitly deterministic model, z = f(x)."""
    return model.decoder(model.encoder(x, **dropout).mean)


@objective.register(schemas.MaximumLikelihood)
def maximum_likelihood(
    schema: schemas.MaximumLikelihood, model: VIB, x: Array, y: Array, **_: object
) -> Terms:
    """-log q(y|x): the baseline of Table 1."""
    distortion = cross_entropy(deterministic_logits(model, x), y)
    return Terms(distortion, distortion, None)


@objective.register(schemas.Dropout)
def dropout(
    schema: schemas.Dropout, model: VIB, x: Array, y: Array, *, key: Key[Array, ""], **_: object
) -> Terms:
    """-log q(y|x) with dropout on the encoder's hidden layers."""
    logits = deterministic_logits(model, x, dropout_key=key, dropout_rate=schema.rate)
    distortion = cross_entropy(logits, y)
    return Terms(distortion, distortion, None)


@objective.register(schemas.ConfidencePenalty)
def confidence_penalty(
    schema: schemas.ConfidencePenalty, model: VIB, x: Array, y: Array, **_: object
) -> Terms:
    """Equation 4: -log q(y|x) - weight H(q(y|x))."""
    log_q = jax.nn.log_softmax(deterministic_logits(model, x))
    distortion = cross_entropy(log_q, y)
    entropy = -jnp.sum(jnp.exp(log_q) * log_q, axis=-1)
    return Terms(distortion - schema.weight * entropy, distortion, None)


@objective.register(schemas.LabelSmoothing)
def label_smoothing(
    schema: schemas.LabelSmoothing, model: VIB, x: Array, y: Array, **_: object
) -> Terms:
    """Section 2: the zeros of the one-hot label become epsilon, then it is renormalised."""
    log_q = jax.nn.log_softmax(deterministic_logits(model, x))
    one_hot = jax.nn.one_hot(y, log_q.shape[-1])
    smoothed = jnp.where(one_hot == 0, schema.epsilon, one_hot)
    smoothed /= smoothed.sum(axis=-1, keepdims=True)
    distortion = cross_entropy(log_q, y)
    return Terms(-jnp.sum(smoothed * log_q, axis=-1), distortion, None)
