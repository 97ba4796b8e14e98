"""Adam in the efficient form of Kingma and Ba (section 2, last paragraph), as an optax transform.

It is what TensorFlow runs, and so the author's notebook: epsilon is added to the uncorrected
sqrt(v). optax divides both moments by their corrections first, which costs two divisions a weight
where training on a CPU is bound by memory and division.
"""

import jax
import jax.numpy as jnp
import optax

EPSILON = 1e-8


def scale_by_adam(*, b1: float, b2: float) -> optax.GradientTransformation:
    """Turn gradients into Adam's direction, to be multiplied by minus the learning rate.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;
    direction = sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon).
    """

    def init(parameters: optax.Params) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        return optax.ScaleByAdamState(count=jnp.zeros((), jnp.int32), mu=zeros, nu=zeros)

    def update(
        gradients: optax.Updates, state: optax.ScaleByAdamState, _: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, gradients)
        t = count.astype(jnp.float32)
        correction = jnp.sqrt(1 - b2**t) / (1 - b1**t)
        direction = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + EPSILON), mu, nu)
        return direction, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)
