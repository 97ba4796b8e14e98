"""White-box attacks within a budget: one gradient step (FGSM) or many, projected (PGD).

Both descend the margin in logits rather than the cross-entropy, whose gradient underflows to
zero where a model is very sure of itself: such an attack would measure saturation, not robustness.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vibx.attacks.descent import Norm, descents_from_random_starts, projected_descent
from vibx.attacks.per_image import Classify, Goal, goals, over_images

CHUNK = 256  # images attacked at a time; bounds memory


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


@functools.partial(jax.jit, static_argnames=("noise_samples", "chunk"))
def margin_gradients(
    classify: Classify,
    images: Float[Array, "n pixels"],
    labels: Int[Array, "n"],
    keys: Key[Array, "n"],
    *,
    targets: Int[Array, "n"] | None = None,
    noise_samples: int = 1,
    chunk: int = CHUNK,
) -> Float[Array, "n pixels"]:
    """The gradients that the attacks follow, to look for zeros and non-finite values."""

    def one(goal: Goal, image: Array, key: Array) -> Float[Array, "pixels"]:
        return margin_gradient(classify, goal, image, key, noise_samples=noise_samples)

    return over_images(one, goals(labels, targets), images, keys, chunk=chunk)


@functools.partial(jax.jit, static_argnames=("norm", "noise_samples", "chunk"))
def fgsm(
    classify: Classify,
    images: Float[Array, "n pixels"],
    labels: Int[Array, "n"],
    keys: Key[Array, "n"],
    *,
    norm: Norm,
    epsilon: Float[Array, "#n"] | float,
    targets: Int[Array, "n"] | None = None,
    noise_samples: int = 1,
    chunk: int = CHUNK,
) -> Float[Array, "n pixels"]:
    """One step of size epsilon along the gradient (L2) or its sign (Linf): Goodfellow et al. 2015.

    Args:
        classify: The classifier.
        images: In [0, 1].
        labels: The classes to leave, where there are no targets.
        keys: One per image, see `image_keys`.
        norm: Of the budget.
        epsilon: The budget in range-1 pixels, of all images or of each.
        targets: The classes to reach.
        noise_samples: Keys over which the gradient is averaged.
        chunk: Images attacked at a time; bounds memory.

    Returns:
        The last images, whether or not they are adversarial, in [0, 1] and within the budget.
    """

    def one(goal: Goal, image: Array, key: Array, epsilon: Array) -> Float[Array, "pixels"]:
        gradient = functools.partial(margin_gradient, classify, goal, noise_samples=noise_samples)
        return projected_descent(
            gradient, image, image, key, norm=norm, epsilon=epsilon, step_size=epsilon, steps=1
        )

    budgets = jnp.broadcast_to(epsilon, len(images))
    return over_images(one, goals(labels, targets), images, keys, budgets, chunk=chunk)


@functools.partial(jax.jit, static_argnames=("norm", "noise_samples", "chunk"))
def pgd(
    classify: Classify,
    images: Float[Array, "n pixels"],
    labels: Int[Array, "n"],
    keys: Key[Array, "n"],
    *,
    norm: Norm,
    epsilon: Float[Array, "#n"] | float,
    step_size: float,
    steps: int,
    targets: Int[Array, "n"] | None = None,
    noise_samples: int = 1,
    chunk: int = CHUNK,
) -> Float[Array, "n pixels"]:
    """Many projected steps from a random start in the ball of radius epsilon: Madry et al. 2018.

    Args:
        classify: The classifier.
        images: In [0, 1].
        labels: The classes to leave, where there are no targets.
        keys: One per image, see `image_keys`; the start and all noise come from them.
        norm: Of the budget.
        epsilon: The budget in range-1 pixels, of all images or of each.
        step_size: Of every step, as a fraction of the budget.
        steps: How many.
        targets: The classes to reach.
        noise_samples: Keys over which each gradient is averaged.
        chunk: Images attacked at a time; bounds memory.

    Returns:
        The last images, whether or not they are adversarial, in [0, 1] and within the budget.
    """
    return descents_from_random_starts(
        functools.partial(margin_gradient, classify, noise_samples=noise_samples),
        goals(labels, targets),
        images,
        keys,
        norm=norm,
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        chunk=chunk,
    )
