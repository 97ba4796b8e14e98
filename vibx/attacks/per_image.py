"""What all attacks share: every image is attacked on its own, with its own goal and its own noise.

So the result of an image does not depend on the images that are attacked with it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vibx.attacks.settings import Attack
from vibx.choices import found_by_schema

# Logits or log-probabilities of one image in [0, 1], with the noise of one key. Jitted attacks
# take it as an argument: as a `jax.tree_util.Partial` whose bound arguments are the weights.
Classify = Callable[[Float[Array, "pixels"], Key[Array, ""]], Float[Array, "classes"]]
Progress = Callable[[float], None]  # is told the fraction of the work that is done


class Adversarial(NamedTuple):
    """What an attack made of images.

    Attributes:
        images: In [0, 1], whether or not the attack reached its goal.
        found: What else it tells of each image, by name. `success`, if it is there: whether the
            attack saw the image at its goal.
    """

    images: Float[Array, "n pixels"]
    found: dict[str, Array]


class Goal(NamedTuple):
    """What an attack wants: a class that the image must leave or, if `targeted`, must reach."""

    label: Int[Array, "*n"]
    targeted: Bool[Array, "*n"]

    def margin(self, logits: Float[Array, "classes"]) -> Float[Array, ""]:
        """How far one image is from the goal, in logits; negative where it is reached.

        Targeted: max_{i != t} Z_i - Z_t. Untargeted: Z_y - max_{i != y} Z_i.
        """
        own = jnp.arange(logits.size) == self.label
        other = jnp.max(jnp.where(own, -jnp.inf, logits))
        lead = jnp.sum(jnp.where(own, logits, 0)) - other
        return jnp.where(self.targeted, -lead, lead)

    def reached(
        self, logits: Float[Array, "classes"], confidence: Float[Array, ""] | float = 0.0
    ) -> Bool[Array, ""]:
        """Whether the largest logit is the goal's, even after `confidence` logits against it."""
        own = jnp.arange(logits.size) == self.label
        handicap = jnp.where(self.targeted, -confidence, confidence)
        predicted = jnp.argmax(logits + handicap * own)
        return (predicted == self.label) == self.targeted


class Task(NamedTuple):
    """An image in [0, 1], what it shall become, and the key of all noise; or n of each."""

    image: Float[Array, "*n pixels"]
    goal: Goal
    key: Key[Array, "*n"]


def tasks(
    images: Float[Array, "n pixels"],
    labels: Int[Array, "n"],
    keys: Key[Array, "n"],
    *,
    targets: Int[Array, "n"] | None = None,
) -> Task:
    """Images in [0, 1] that shall reach the targets or, if there are none, leave the labels.

    Keys are one per image, see `image_keys`.
    """
    classes = jnp.asarray(labels if targets is None else targets)
    goal = Goal(classes, jnp.full(classes.shape, targets is not None))
    return Task(jnp.asarray(images, jnp.float32), goal, keys)


@found_by_schema
def perturb(
    settings: Attack, classify: Classify, tasks: Task, *, on_progress: Progress
) -> Adversarial:
    """The attack that settings stand for; their schema decides which it is.

    One that takes long tells `on_progress` the fraction of the work that is done.

    Raises:
        ConfigError: No code is registered for the settings.
    """
    raise NotImplementedError


def image_keys(key: Key[Array, ""], indices: Int[Array, "n"]) -> Key[Array, "n"]:
    """One key per image from its index in the data set, whichever others are attacked with it."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(indices))


def over_images(function: Callable[..., Any], *arguments: Any, chunk: int) -> Any:
    """`function` of each image's arguments, `chunk` images at a time to bound memory."""
    return jax.lax.map(lambda one: function(*one), arguments, batch_size=chunk)


def part_of(on_progress: Progress, start: float, share: float) -> Progress:
    """The progress of a part of the work, which begins at `start` and makes up `share` of it."""
    return lambda done: on_progress(start + share * done)
