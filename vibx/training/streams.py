"""Random streams: one per purpose, derived from a run's key and never carried along.

A draw depends only on the seed, the purpose and the step, so a resumed run replays it.
"""

from enum import IntEnum

import jax
from jaxtyping import Array, Key


class Stream(IntEnum):
    """Purposes. The values are part of what a seed means: append, never renumber."""

    INIT = 0
    DATA = 1
    NOISE = 2
    EVALUATION = 3
    ATTACK = 4


def stream(key: Key[Array, ""], purpose: Stream) -> Key[Array, ""]:
    """The key of one purpose; fold a step or an example into it before drawing."""
    return jax.random.fold_in(key, purpose)
