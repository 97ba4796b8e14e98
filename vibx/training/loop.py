"""The epochs of a group of runs, from their latest checkpoint to the end."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vibx.config import Config
from vibx.data import Images
from vibx.training.checkpoint import Checkpoints
from vibx.training.group import one_of, padded, shared, stacked
from vibx.training.state import TrainState, split
from vibx.training.step import compiled_epoch, compiled_initial_state


class Epoch(NamedTuple):
    """What an epoch left of one run: means over its images in nats, its share of the time."""

    number: int
    objective: float
    distortion: float
    rate: float
    learning_rate: float
    seconds: float
    states: TrainState
    run: int
    runs: int

    @property
    def state(self) -> TrainState:
        """The run's state; valid until the next epoch is asked for, which reuses its memory."""
        return one_of(self.states, self.run, runs=self.runs)


def train(
    cfgs: Sequence[Config], images: Images, checkpoints: Sequence[Checkpoints]
) -> Iterator[list[Epoch]]:
    """Train runs of one program, all after the same epoch, and yield their epochs, from 1 on.

    A run whose objective is no longer finite goes on: it does not touch its neighbours.
    """
    (program,) = {split(cfg)[0] for cfg in cfgs}
    (first,) = {c.epoch or 0 for c in checkpoints}
    group = padded(list(range(len(cfgs))))
    runs = len(group)
    keys = [jax.random.key(cfg.seed) for cfg in cfgs]
    if first:
        states = [c.restore(program) for c in checkpoints]
    else:
        states = [compiled_initial_state(program)(key) for key in keys]
    state = stacked([states[run] for run in group])
    numbers = stacked([split(cfgs[run])[1] for run in group])
    key = stacked([keys[run] for run in group])
    images = shared(images, runs=runs)
    run_epoch = compiled_epoch(program, len(images.labels), runs=runs)
    for number in range(first + 1, program.epochs + 1):
        start = time.perf_counter()
        state, measurements = jax.block_until_ready(run_epoch(state, images, numbers, key))
        seconds = (time.perf_counter() - start) / len(cfgs)
        fraction = program.schedule_fraction(jnp.int32((number - 1) * program.steps_per_epoch))
        yield [
            Epoch(
                number,
                *(float(term) for term in one_of(measurements, run, runs=runs)),
                learning_rate=float(split(cfg)[1].learning_rate * fraction),
                seconds=seconds,
                states=state,
                run=run,
                runs=runs,
            )
            for run, cfg in enumerate(cfgs)
        ]
