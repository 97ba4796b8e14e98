"""Exponential averages without a bias towards zero, AdamW made of two of them, and its schedule.

To add an optimizer: its schema in `vibx/config/schemas.py`, a subclass of `Optimizer` with numbers
of its own; a function registered for it here as `direction`; and its yaml.
"""

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from vibx.choices import found_by_schema
from vibx.config import Config, schemas

EPSILON = 1e-8


def averaging_span(decay: float, count: Int[Array, ""]) -> Float[Array, ""]:
    """(1 - decay^count) / (1 - decay): how many values the `count`-th average amounts to.

    With a_t = decay a_{t-1} + (1 - decay) x_t from a_0 = 0, the debiased average
    a_t / (1 - decay^t) obeys A_t = A_{t-1} + (x_t - A_{t-1}) / span_t. Storing A instead of a
    spares the corrections, and on a CPU a pass over the weights; `expm1` spares a cancellation.
    """
    log_decay = math.log(decay) if decay > 0 else -math.inf
    return jnp.expm1(count * log_decay) / (decay - 1)


def averaged(average: optax.Params, value: optax.Params, span: Float[Array, ""]) -> optax.Params:
    """The debiased average after one more value."""
    return jax.tree.map(lambda a, x: a + (x - a) / span, average, value)


@found_by_schema
def direction(optimizer: object) -> optax.GradientTransformation:
    """From gradients to the direction that the learning rate scales, for an optimizer's schema."""


@direction.register(schemas.Adam)
def adam(optimizer: schemas.Adam) -> optax.GradientTransformation:
    """AdamW's direction m / (sqrt(v) + epsilon) + weight_decay w, as `optax.adamw`.

    m and v, the debiased averages of g and g^2 (Kingma and Ba, algorithm 1), are what is stored.
    """

    def init(parameters: optax.Params) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        return optax.ScaleByAdamState(count=jnp.zeros((), jnp.int32), mu=zeros, nu=zeros)

    def update(
        gradients: optax.Updates, state: optax.ScaleByAdamState, parameters: optax.Params
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        count = optax.safe_increment(state.count)
        squares = jax.tree.map(jnp.square, gradients)
        mu = averaged(state.mu, gradients, averaging_span(optimizer.b1, count))
        nu = averaged(state.nu, squares, averaging_span(optimizer.b2, count))
        decay = optimizer.weight_decay
        adapted = jax.tree.map(
            lambda m, v, w: m / (jnp.sqrt(v) + EPSILON) + decay * w, mu, nu, parameters
        )
        return adapted, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def learning_rate(cfg: Config, step: Int[Array, ""]) -> Float[Array, ""]:
    """The learning rate at a step of a run's schedule."""
    optimizer = cfg.optimizer
    match optimizer.schedule:
        case "staircase":
            fraction = optax.exponential_decay(
                1.0,
                transition_steps=optimizer.decay_epochs * cfg.steps_per_epoch,
                decay_rate=optimizer.decay_rate,
                staircase=True,
            )
        case "cosine":
            fraction = optax.cosine_decay_schedule(1.0, cfg.epochs * cfg.steps_per_epoch)
        case "constant":
            fraction = optax.constant_schedule(1.0)
    return optimizer.learning_rate * fraction(step)
