"""White-box attacks within a budget: one gradient step (FGSM) or many, projected (PGD).

Both descend the margin in logits rather than the cross-entropy, whose gradient underflows to
zero where a model is very sure of itself: such an attack would measure saturation, not robustness.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vibx.attacks.descent import descent_from_random_start, perturb_within, projected_descent
from vibx.attacks.per_image import Classify, Goal, Task, over_images
from vibx.attacks.settings import FGSM, PGD, WithinBudget


def margin_gradient(
    classify: Classify,
    goal: Goal,
    image: Float[Array, "pixels"],
    key: Key[Array, ""],
    *,
    noise_samples: int,
) -> Float[Array, "pixels"]:
    """The gradient of one image's margin to its goal, averaged over `noise_samples` keys."""
    noise = jax.random.split(key, noise_samples)

    def mean_margin(image: Float[Array, "pixels"]) -> Float[Array, ""]:
        # Only the key is batched, so what does not depend on it is computed once.
        logits = jax.vmap(classify, in_axes=(None, 0))(image, noise)
        return jnp.mean(jax.vmap(goal.margin)(logits))

    return jax.grad(mean_margin)(image)


@functools.partial(jax.jit, static_argnames="noise_samples")
def margin_gradients(
    classify: Classify, tasks: Task, *, noise_samples: int = 1
) -> Float[Array, "n pixels"]:
    """The gradients that the attacks follow, to look for zeros and non-finite values."""

    def one(image: Array, goal: Goal, key: Array) -> Float[Array, "pixels"]:
        return margin_gradient(classify, goal, image, key, noise_samples=noise_samples)

    return over_images(one, *tasks, chunk=WithinBudget.chunk)


def mean_margin_gradient(
    settings: FGSM | PGD, classify: Classify, task: Task
) -> Callable[[Float[Array, "pixels"], Key[Array, ""]], Float[Array, "pixels"]]:
    """`margin_gradient` of a point and a key."""
    samples = settings.noise_samples
    return functools.partial(margin_gradient, classify, task.goal, noise_samples=samples)


@perturb_within.register(FGSM)
def _(
    settings: FGSM, classify: Classify, task: Task, epsilon: Float[Array, ""]
) -> Float[Array, "pixels"]:
    return projected_descent(
        mean_margin_gradient(settings, classify, task),
        task.image,
        task.image,
        task.key,
        norm=settings.norm,
        epsilon=epsilon,
        step_size=epsilon,
        steps=1,
    )


@perturb_within.register(PGD)
def _(
    settings: PGD, classify: Classify, task: Task, epsilon: Float[Array, ""]
) -> Float[Array, "pixels"]:
    gradient = mean_margin_gradient(settings, classify, task)
    return descent_from_random_start(settings, gradient, task, epsilon)
