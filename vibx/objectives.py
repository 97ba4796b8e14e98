"""Training objectives, one value per image in nats: equation 17 and Table 1's regularisers.

To add one: write a function with this signature, name it in `OBJECTIVES`, give its numbers a
field in `Hyperparameters`, and add its schema to `config.py` and its file to `conf/objective/`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vibx.encodings import Point
from vibx.networks import CLASSES, VIB


class Hyperparameters(NamedTuple):
    """The numbers of a run. Traced: a sweep over them compiles once."""

    learning_rate: Float[Array, ""] | float

    beta: Float[Array, ""] | float = 0.0
    dropout_rate: Float[Array, ""] | float = 0.0
    penalty_weight: Float[Array, ""] | float = 0.0
    smoothing: Float[Array, ""] | float = 0.0


class Terms(NamedTuple):
    """An objective and what it is made of, in nats. rate is zero where there is none."""

    objective: Float[Array, "batch"]
    distortion: Float[Array, "batch"]
    rate: Float[Array, "batch"]


def cross_entropy(
    logits: Float[Array, "*batch 10"], labels: Int[Array, "*#batch"]
) -> Float[Array, "*batch"]:
    """-log q(y|z) in nats, from logits."""
    return -jnp.sum(jax.nn.log_softmax(logits) * jax.nn.one_hot(labels, CLASSES), axis=-1)


def vib(
    model: VIB,
    x: Float[Array, "batch 784"],
    y: Int[Array, "batch"],
    *,
    key: Key[Array, ""],
    numbers: Hyperparameters,
    train_samples: int,
) -> Terms:
    """Equation 17: E[-log q(y|z)] + beta KL[p(z|x), r(z)]; equation 18 at beta = 0.

    The expectation is a mean over `train_samples` reparameterised samples.
    """
    encoding = model.encoder(x)
    assert not isinstance(encoding, Point)  # Config refuses it
    z = encoding.sample(key, train_samples)
    distortion = cross_entropy(model.decoder(z), y).mean(axis=0)
    rate = model.marginal.rate(encoding)
    return Terms(distortion + numbers.beta * rate, distortion, rate)


def deterministic_logits(model: VIB, x: Array, **dropout: object) -> Float[Array, "batch 10"]:
    """Logits of the explicitly deterministic model, z = f(x)."""
    return model.decoder(model.encoder(x, **dropout).mean)


def maximum_likelihood(model: VIB, x: Array, y: Array, **_: object) -> Terms:
    """-log q(y|x): the baseline of Table 1."""
    distortion = cross_entropy(deterministic_logits(model, x), y)
    return Terms(distortion, distortion, jnp.zeros_like(distortion))


def dropout(
    model: VIB, x: Array, y: Array, *, key: Key[Array, ""], numbers: Hyperparameters, **_: object
) -> Terms:
    """-log q(y|x) with dropout on the encoder's hidden layers."""
    logits = deterministic_logits(model, x, dropout_key=key, dropout_rate=numbers.dropout_rate)
    distortion = cross_entropy(logits, y)
    return Terms(distortion, distortion, jnp.zeros_like(distortion))


def confidence_penalty(
    model: VIB, x: Array, y: Array, *, numbers: Hyperparameters, **_: object
) -> Terms:
    """Equation 4: -log q(y|x) - weight H(q(y|x))."""
    log_q = jax.nn.log_softmax(deterministic_logits(model, x))
    distortion = cross_entropy(log_q, y)
    entropy = -jnp.sum(jnp.exp(log_q) * log_q, axis=-1)
    objective = distortion - numbers.penalty_weight * entropy
    return Terms(objective, distortion, jnp.zeros_like(distortion))


def label_smoothing(
    model: VIB, x: Array, y: Array, *, numbers: Hyperparameters, **_: object
) -> Terms:
    """Section 2: the zeros of the one-hot label become epsilon, then it is renormalised."""
    log_q = jax.nn.log_softmax(deterministic_logits(model, x))
    one_hot = jax.nn.one_hot(y, CLASSES)
    smoothed = jnp.where(one_hot == 0, numbers.smoothing, one_hot)
    smoothed /= smoothed.sum(axis=-1, keepdims=True)
    distortion = cross_entropy(log_q, y)
    objective = -jnp.sum(smoothed * log_q, axis=-1)
    return Terms(objective, distortion, jnp.zeros_like(distortion))


OBJECTIVES: dict[str, Callable[..., Terms]] = {
    "vib": vib,
    "maximum_likelihood": maximum_likelihood,
    "dropout": dropout,
    "confidence_penalty": confidence_penalty,
    "label_smoothing": label_smoothing,
}
