"""What all attacks share: every image is attacked on its own, with its own goal and its own noise.

So the result of an image does not depend on the images that are attacked with it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

# Logits or log-probabilities of one image in [0, 1], with the noise of one key. Jitted attacks
# take it as an argument: as a `jax.tree_util.Partial` whose bound arguments are the weights.
Classify = Callable[[Float[Array, "pixels"], Key[Array, ""]], Float[Array, "classes"]]


class Goal(NamedTuple):
    """What an attack wants: a class that the image must leave or, if `targeted`, must reach."""

    of_class: Int[Array, "*n"]
    targeted: Bool[Array, "*n"]

    def margin(self, logits: Float[Array, "classes"]) -> Float[Array, ""]:
        """How far one image is from the goal, in logits; negative where it is reached.

        Targeted: max_{i != t} Z_i - Z_t. Untargeted: Z_y - max_{i != y} Z_i.
        """
        own = jnp.arange(logits.size) == self.of_class
        other = jnp.max(jnp.where(own, -jnp.inf, logits))
        lead = jnp.sum(jnp.where(own, logits, 0)) - other
        return jnp.where(self.targeted, -lead, lead)

    def reached(
        self, logits: Float[Array, "classes"], confidence: Float[Array, ""] | float = 0.0
    ) -> Bool[Array, ""]:
        """Whether the largest logit is the goal's, even after `confidence` logits against it."""
        own = jnp.arange(logits.size) == self.of_class
        handicap = jnp.where(self.targeted, -confidence, confidence)
        predicted = jnp.argmax(logits + handicap * own)
        return (predicted == self.of_class) == self.targeted


def goals(labels: Int[Array, "n"], targets: Int[Array, "n"] | None) -> Goal:
    """Reach the targets, or leave the labels if there are none."""
    classes = jnp.asarray(labels if targets is None else targets)
    return Goal(classes, jnp.full(classes.shape, targets is not None))


def image_keys(key: Key[Array, ""], indices: Int[Array, "n"]) -> Key[Array, "n"]:
    """One key per image from its index in the data set, whichever others are attacked with it."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(indices))


def over_images(function: Callable[..., Any], *arguments: Any, chunk: int) -> Any:
    """`function` of each image's arguments, `chunk` images at a time to bound memory."""
    return jax.lax.map(lambda one: function(*one), arguments, batch_size=chunk)
