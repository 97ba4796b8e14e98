"""Projected descent within a norm ball, which white-box and black-box attacks have in common."""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vibx.attacks.per_image import Goal, over_images

Norm = Literal["l2", "linf"]

BISECTIONS = 30  # halvings of [0, 1]: beyond float32
TINY = 1e-30  # keeps the direction of a zero gradient finite, and zero


def project(
    image: Float[Array, "pixels"],
    origin: Float[Array, "pixels"],
    *,
    norm: Norm,
    epsilon: Float[Array, ""],
) -> Float[Array, "pixels"]:
    """The point nearest to `image` that is in [0, 1] and no farther than `epsilon` from `origin`.

    For L2 that is the perturbation scaled and then clipped to the box, by the scale in [0, 1]
    that gives it the norm epsilon (the condition of Karush, Kuhn and Tucker): clipping after
    scaling to epsilon would leave some of the budget unused.
    """
    if norm == "linf":
        return jnp.clip(jnp.clip(image, origin - epsilon, origin + epsilon), 0, 1)

    def scaled(scale: Float[Array, ""]) -> Float[Array, "pixels"]:
        return jnp.clip(origin + scale * (image - origin), 0, 1)

    def within(scale: Float[Array, ""]) -> Array:
        return jnp.linalg.norm(scaled(scale) - origin) <= epsilon

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        inside = within(middle)
        return jnp.where(inside, middle, low), jnp.where(inside, high, middle)

    low, _ = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros(()), jnp.ones(())))
    return scaled(jnp.where(within(jnp.ones(())), 1, low))


def steepest(gradient: Float[Array, "pixels"], *, norm: Norm) -> Float[Array, "pixels"]:
    """The direction of norm 1 along which a linear function rises most; zero if it is flat."""
    if norm == "linf":
        return jnp.sign(gradient)
    # Divided by its largest entry first: squares of small gradients underflow.
    gradient = gradient / jnp.maximum(jnp.max(jnp.abs(gradient)), TINY)
    return gradient / jnp.maximum(jnp.linalg.norm(gradient), TINY)


def random_start(
    key: Key[Array, ""], origin: Float[Array, "pixels"], *, norm: Norm, epsilon: Float[Array, ""]
) -> Float[Array, "pixels"]:
    """A point drawn uniformly from the ball of radius epsilon, then brought into [0, 1]."""
    if norm == "linf":
        perturbation = jax.random.uniform(key, origin.shape, minval=-1, maxval=1)
    else:
        direction_key, radius_key = jax.random.split(key)
        direction = steepest(jax.random.normal(direction_key, origin.shape), norm=norm)
        # The share of the ball within a radius r is r to the number of dimensions.
        perturbation = direction * jax.random.uniform(radius_key) ** (1 / origin.size)
    return project(origin + epsilon * perturbation, origin, norm=norm, epsilon=epsilon)


def descents_from_random_starts(
    gradient: Callable[..., Float[Array, "pixels"]],
    goal: Goal,
    images: Float[Array, "n pixels"],
    keys: Key[Array, "n"],
    *,
    norm: Norm,
    epsilon: Float[Array, "#n"] | float,
    step_size: float,
    steps: int,
    chunk: int,
) -> Float[Array, "n pixels"]:
    """`projected_descent` of each image by `gradient` of (goal, image, key), from a random start.

    The step size is a fraction of the budget epsilon, which is of all images or of each.
    """

    def one(goal: Goal, image: Array, key: Array, epsilon: Array) -> Float[Array, "pixels"]:
        start_key, noise_key = jax.random.split(key)
        return projected_descent(
            functools.partial(gradient, goal),
            random_start(start_key, image, norm=norm, epsilon=epsilon),
            image,
            noise_key,
            norm=norm,
            epsilon=epsilon,
            step_size=step_size * epsilon,
            steps=steps,
        )

    budgets = jnp.broadcast_to(epsilon, len(images))
    return over_images(one, goal, images, keys, budgets, chunk=chunk)


def projected_descent(
    gradient: Callable[[Float[Array, "pixels"], Key[Array, ""]], Float[Array, "pixels"]],
    start: Float[Array, "pixels"],
    origin: Float[Array, "pixels"],
    key: Key[Array, ""],
    *,
    norm: Norm,
    epsilon: Float[Array, ""],
    step_size: Float[Array, ""] | float,
    steps: int,
) -> Float[Array, "pixels"]:
    """Descend `steps` times by `step_size` (in the norm), always back into ball and box.

    `gradient` is a possibly noisy estimate at a point with a key. The last point is returned: of
    all points, the one that looks best would be the one with the luckiest noise.
    """

    def step(i: int, image: Float[Array, "pixels"]) -> Float[Array, "pixels"]:
        slope = gradient(image, jax.random.fold_in(key, i))
        moved = image - step_size * steepest(slope, norm=norm)
        return project(moved, origin, norm=norm, epsilon=epsilon)

    return jax.lax.fori_loop(0, steps, step, start)
