"""How large perturbations are, and what a classifier says of images under independent noise."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from vibx.attacks.per_image import Classify, over_images

L0_8_BITS = 0.5 / 255  # a smaller change does not survive rounding to 8 bits
L0_VISIBLE = 0.05
CHUNK, ANSWERS = 256, 128  # images classified at a time, and of each so often; bounds memory
INDEPENDENT = 2**31 - 1  # folded into keys: no attack's noise, not even under its own keys


class Norms(NamedTuple):
    """Norms of each perturbation, in pixels of range 1.

    L0 counts pixels that changed by more than a threshold: half an 8-bit level, or 0.05. Figure
    4(a) does not say which it uses, and the trend over beta depends on it.
    """

    l0_8_bits: Int[np.ndarray, "n"]
    l0_visible: Int[np.ndarray, "n"]
    l2: Float[np.ndarray, "n"]
    linf: Float[np.ndarray, "n"]


def norms(images: Float[Array, "n pixels"], adversarial: Float[Array, "n pixels"]) -> Norms:
    """Norms of adversarial - images."""
    change = np.abs(np.asarray(adversarial, np.float64) - np.asarray(images, np.float64))
    return Norms(
        l0_8_bits=np.sum(change > L0_8_BITS, axis=1),
        l0_visible=np.sum(change > L0_VISIBLE, axis=1),
        l2=np.sqrt(np.sum(change**2, axis=1)),
        linf=np.max(change, axis=1),
    )


def to_8_bits(images: Float[Array, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Images in [0, 1] as 8-bit levels, to the nearest; divided by 255 they are images again."""
    return np.rint(255 * np.asarray(images, np.float64)).astype(np.uint8)


@functools.partial(jax.jit, static_argnames=("repeats", "chunk"))
def reevaluate(
    classify: Classify,
    images: Float[Array, "n pixels"],
    keys: Key[Array, "n"],
    *,
    repeats: int,
    chunk: int = CHUNK,
) -> Int[Array, "n classes"]:
    """How often each class was predicted in `repeats` classifications with independent noise.

    The noise is independent of an attack's even where `keys` are the same.
    """

    def votes(image: Array, key: Array) -> Int[Array, "classes"]:
        noise = jax.random.split(jax.random.fold_in(key, INDEPENDENT), repeats)
        logits = jax.lax.map(functools.partial(classify, image), noise, batch_size=ANSWERS)
        predicted = jnp.argmax(logits, axis=1, keepdims=True)
        return jnp.sum(predicted == jnp.arange(logits.shape[1]), axis=0)

    return over_images(votes, images, keys, chunk=chunk)


def share_of(
    votes: Int[np.ndarray, "n classes"], classes: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """The share of each image's answers, as `reevaluate` counts them, that are its class."""
    return votes[np.arange(len(votes)), classes] / votes.sum(axis=1)
