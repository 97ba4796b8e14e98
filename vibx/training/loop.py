"""The epochs of one run, from its latest checkpoint to the end."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from vibx.config import Config
from vibx.data import Images
from vibx.errors import FailedRunError
from vibx.training.checkpoint import Checkpoints
from vibx.training.state import TrainState, split
from vibx.training.step import compiled_epoch, compiled_initial_state


class DivergedError(FailedRunError):
    """A run's objective is no longer finite."""


class Epoch(NamedTuple):
    """What an epoch left: the state after it, means over its images in nats, its time."""

    number: int
    state: TrainState
    objective: float
    distortion: float
    rate: float
    learning_rate: float
    seconds: float


def train(cfg: Config, images: Images, checkpoints: Checkpoints) -> Iterator[Epoch]:
    """Train a run from its latest checkpoint and yield its epochs, numbered from 1.

    A yielded state is valid until the next epoch is asked for, which reuses its memory.

    Raises:
      DivergedError: the mean of the objective over an epoch is not finite.
    """
    program, numbers = split(cfg)
    key = jax.random.key(cfg.seed)
    run_epoch = compiled_epoch(program, len(images.labels))
    first = checkpoints.epoch or 0
    state = checkpoints.restore(program) if first else compiled_initial_state(program)(key)
    for number in range(first + 1, cfg.epochs + 1):
        learning_rate = float(numbers.learning_rate * program.schedule_fraction(state.step))
        start = time.perf_counter()
        state, measurements = jax.block_until_ready(run_epoch(state, images, numbers, key))
        seconds = time.perf_counter() - start
        objective, distortion, rate = (float(m) for m in measurements)
        if not np.isfinite(objective):
            raise DivergedError(f"{cfg.run_id}: the objective is not finite in epoch {number}")
        yield Epoch(number, state, objective, distortion, rate, learning_rate, seconds)
