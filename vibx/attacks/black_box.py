"""Attacks that see no gradient: SPSA, which sees values, and random noise, which sees nothing.

SPSA rather than the boundary attack: it averages over many evaluations, so that a classifier's
noise cancels, where the boundary attack trusts single noisy decisions.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vibx.attacks.descent import descent_from_random_start, perturb_within, project, steepest
from vibx.attacks.per_image import Classify, Goal, Task
from vibx.attacks.settings import SPSA, Noise

FAR = 100.0  # budgets; from there, projection finds the noise of the wanted norm


def spsa_gradient(
    classify: Classify,
    goal: Goal,
    image: Float[Array, "pixels"],
    key: Key[Array, ""],
    *,
    directions: int,
    delta: Float[Array, ""] | float,
) -> Float[Array, "pixels"]:
    """An estimate of the gradient of one image's margin to its goal, from its values alone.

    The mean over random signs v of (margin(x + delta v) - margin(x - delta v)) / (2 delta v),
    each point brought into [0, 1]: a pixel is divided by the distance that it really moved, so
    the estimate has no bias where the margin is linear. Spall 1992; Uesato et al. 2018.
    """
    sign_key, noise_key = jax.random.split(key)
    signs = jax.random.rademacher(sign_key, (directions, image.size), image.dtype)
    distance = jnp.clip(image + delta, 0, 1) - jnp.clip(image - delta, 0, 1)

    def margin(point: Float[Array, "pixels"], key: Key[Array, ""]) -> Float[Array, ""]:
        return goal.margin(classify(jnp.clip(point, 0, 1), key))

    # Every evaluation has noise of its own: an outsider cannot hold it fixed. One vmap for both
    # sides: two would factor their covariances at once, and XLA's CPU threads wait for each other.
    points = image + delta * jnp.stack([signs, -signs])
    noise = jax.random.split(noise_key, (2, directions))
    above, below = jax.vmap(jax.vmap(margin))(points, noise)
    return (above - below) @ signs / (directions * distance)


@perturb_within.register(SPSA)
def _(
    settings: SPSA, classify: Classify, task: Task, epsilon: Float[Array, ""]
) -> Float[Array, "pixels"]:
    def gradient(point: Array, key: Array) -> Float[Array, "pixels"]:
        directions, delta = settings.directions, settings.delta
        return spsa_gradient(classify, task.goal, point, key, directions=directions, delta=delta)

    return descent_from_random_start(settings, gradient, task, epsilon)


@perturb_within.register(Noise)
def _(
    settings: Noise, classify: Classify, task: Task, epsilon: Float[Array, ""]
) -> Float[Array, "pixels"]:
    # Its norm is smaller than epsilon only where the box has no room for it.
    normals = jax.random.normal(task.key, task.image.shape)
    far = task.image + FAR * epsilon * steepest(normals, norm=settings.norm)
    return project(far, task.image, norm=settings.norm, epsilon=epsilon)
