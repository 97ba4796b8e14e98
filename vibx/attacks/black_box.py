"""Attacks that see no gradient: SPSA, which sees values, and random noise, which sees nothing.

SPSA rather than the boundary attack: it averages over many evaluations, so that a classifier's
noise cancels, where the boundary attack trusts single noisy decisions.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vibx.attacks.descent import Norm, descents_from_random_starts, project, steepest
from vibx.attacks.per_image import Classify, Goal, goals, over_images

SPSA_CHUNK = 8  # images attacked at a time: each is classified 2 * directions times at once
NOISE_CHUNK = 256
FAR = 100.0  # budgets; from there, projection finds the noise of the wanted norm


def spsa_gradient(
    classify: Classify,
    goal: Goal,
    image: Float[Array, "pixels"],
    key: Key[Array, ""],
    *,
    directions: int,
    delta: float,
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


@functools.partial(jax.jit, static_argnames=("norm", "directions", "chunk"))
def spsa(
    classify: Classify,
    images: Float[Array, "n pixels"],
    labels: Int[Array, "n"],
    keys: Key[Array, "n"],
    *,
    norm: Norm,
    epsilon: Float[Array, "#n"] | float,
    step_size: float,
    steps: int,
    directions: int,
    delta: float = 0.1,
    targets: Int[Array, "n"] | None = None,
    chunk: int = SPSA_CHUNK,
) -> Float[Array, "n pixels"]:
    """`pgd` with gradients estimated from 2 * directions values each: Uesato et al. 2018.

    Args:
        classify: The classifier; only its values are used.
        images: In [0, 1].
        labels: The classes to leave, where there are no targets.
        keys: One per image, see `image_keys`.
        norm: Of the budget.
        epsilon: The budget in range-1 pixels, of all images or of each.
        step_size: Of every step, as a fraction of the budget.
        steps: How many.
        directions: Random directions of each estimate.
        delta: Length of the finite differences, in range-1 pixels; long enough that they stand
            out from the noise of the two values.
        targets: The classes to reach.
        chunk: Images attacked at a time; bounds memory.

    Returns:
        The last images, whether or not they are adversarial, in [0, 1] and within the budget.
    """
    return descents_from_random_starts(
        functools.partial(spsa_gradient, classify, directions=directions, delta=delta),
        goals(labels, targets),
        images,
        keys,
        norm=norm,
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        chunk=chunk,
    )


@functools.partial(jax.jit, static_argnames=("norm",))
def noise(
    images: Float[Array, "n pixels"],
    keys: Key[Array, "n"],
    *,
    norm: Norm,
    epsilon: Float[Array, "#n"] | float,
) -> Float[Array, "n pixels"]:
    """Random noise of norm epsilon, the baseline: Gaussian for L2, random signs for Linf.

    In [0, 1], and smaller than epsilon only where the box has no room for it.
    """

    def one(image: Array, key: Array, epsilon: Array) -> Float[Array, "pixels"]:
        direction = steepest(jax.random.normal(key, image.shape), norm=norm)
        return project(image + FAR * epsilon * direction, image, norm=norm, epsilon=epsilon)

    budgets = jnp.broadcast_to(epsilon, len(images))
    return over_images(one, images, keys, budgets, chunk=NOISE_CHUNK)
