"""Attacks within a budget, and the projected descent that most of them are."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vibx.attacks.per_image import Adversarial, Classify, Progress, Task, over_images, perturb
from vibx.attacks.settings import ProjectedDescent, WithinBudget
from vibx.choices import found_by_schema
from vibx.tracing import traceable

BISECTIONS = 30  # halvings of [0, 1]: beyond float32
TINY = 1e-30  # keeps the direction of a zero gradient finite, and zero


def project(
    image: Float[Array, "pixels"],
    origin: Float[Array, "pixels"],
    *,
    norm: str,
    epsilon: Float[Array, ""] | float,
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


def steepest(gradient: Float[Array, "pixels"], *, norm: str) -> Float[Array, "pixels"]:
    """The direction of norm 1 along which a linear function rises most; zero if it is flat."""
    if norm == "linf":
        return jnp.sign(gradient)
    # Divided by its largest entry first: squares of small gradients underflow.
    gradient = gradient / jnp.maximum(jnp.max(jnp.abs(gradient)), TINY)
    # Its norm is now 1 or more, or 0. Not TINY again: XLA divides by the product, which underflows.
    return gradient / jnp.maximum(jnp.linalg.norm(gradient), 1)


def random_start(
    key: Key[Array, ""],
    origin: Float[Array, "pixels"],
    *,
    norm: str,
    epsilon: Float[Array, ""] | float,
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


@found_by_schema
def perturb_within(
    settings: WithinBudget, classify: Classify, task: Task, epsilon: Float[Array, ""] | float
) -> Float[Array, "pixels"]:
    """One image attacked within a budget of its own, epsilon, in place of the settings'.

    Returns:
        The last point, whether or not it is adversarial, in [0, 1] and within the budget.
    """
    raise NotImplementedError


@jax.jit
def attack_within_budget(
    settings: WithinBudget, classify: Classify, tasks: Task, epsilons: Float[Array, "n"]
) -> Float[Array, "n pixels"]:
    """`perturb_within` of each image, within an epsilon of its own; of traceable settings."""
    one = functools.partial(perturb_within, settings, classify)
    return over_images(one, tasks, epsilons, chunk=settings.chunk)


@perturb.register_family(WithinBudget)
def _(
    settings: WithinBudget, classify: Classify, tasks: Task, *, on_progress: Progress
) -> Adversarial:
    epsilons = jnp.full(len(tasks.image), settings.epsilon, jnp.float32)
    return Adversarial(attack_within_budget(traceable(settings), classify, tasks, epsilons), {})


def descent_from_random_start(
    settings: ProjectedDescent,
    gradient: Callable[[Float[Array, "pixels"], Key[Array, ""]], Float[Array, "pixels"]],
    task: Task,
    epsilon: Float[Array, ""] | float,
) -> Float[Array, "pixels"]:
    """`projected_descent` of one image from a point drawn from the ball of radius epsilon."""
    start_key, noise_key = jax.random.split(task.key)
    return projected_descent(
        gradient,
        random_start(start_key, task.image, norm=settings.norm, epsilon=epsilon),
        task.image,
        noise_key,
        norm=settings.norm,
        epsilon=epsilon,
        step_size=settings.step_size * epsilon,
        steps=settings.steps,
    )


def projected_descent(
    gradient: Callable[[Float[Array, "pixels"], Key[Array, ""]], Float[Array, "pixels"]],
    start: Float[Array, "pixels"],
    origin: Float[Array, "pixels"],
    key: Key[Array, ""],
    *,
    norm: str,
    epsilon: Float[Array, ""] | float,
    step_size: Float[Array, ""] | float,
    steps: Int[Array, ""] | int,
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
