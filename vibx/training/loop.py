"""The epochs of a group of runs, from where each was to the end."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vibx.config import Config
from vibx.data import Images
from vibx.tracing import program, traceable
from vibx.training.checkpoint import Saved
from vibx.training.group import padded, replicated, stacked, unstacked
from vibx.training.optimizer import learning_rate
from vibx.training.state import TrainState
from vibx.training.step import Measurements, compiled_epoch, compiled_initial_state


class Epoch(NamedTuple):
    """An epoch of one run: means over its images while the weights moved, its share of the time."""

    run: int  # its place in the group
    number: int
    measured: Measurements
    learning_rate: float  # at its first step
    seconds: float
    states: TrainState  # of the whole run axis
    axis: int  # its length

    @property
    def state(self) -> TrainState:
        """The run's state; valid until the next epoch is asked for, which reuses its memory."""
        return unstacked(self.states, self.run, runs=self.axis)


def train(
    cfgs: Sequence[Config], images: Images, starts: Sequence[Saved], *, axis: int
) -> Iterator[list[Epoch]]:
    """Train runs of one program from where each was, and yield their epochs of each round.

    A run that is through, or whose objective is no longer finite, goes on unseen until the others
    are through too: it does not touch them.

    Args:
      cfgs: configurations of the runs.
      images: what all of them are trained on.
      starts: of each run, where it starts.
      axis: length of the run axis; its spare places repeat the last run.
    """
    (_,) = {program(cfg) for cfg in cfgs}
    states = [first_state(cfg, start) for cfg, start in zip(cfgs, starts, strict=True)]
    state = stacked(padded(states, length=axis))
    del states
    traced = stacked(padded([traceable(cfg) for cfg in cfgs], length=axis))
    seeds = [jax.random.key_data(jax.random.key(cfg.seed)) for cfg in cfgs]
    key = jax.random.wrap_key_data(stacked(padded(seeds, length=axis)))
    images = replicated(images, runs=axis)
    run_epoch = compiled_epoch(cfgs[0], runs=axis)
    epochs, saved = cfgs[0].epochs, [start.epoch for start in starts]
    for rounds in range(1, epochs - min(saved) + 1):
        begin = time.perf_counter()
        state, measured = jax.block_until_ready(run_epoch(traced, state, images, key))
        seconds = (time.perf_counter() - begin) / len(cfgs)
        yield [
            Epoch(
                run=run,
                number=saved[run] + rounds,
                measured=jax.tree.map(float, unstacked(measured, run, runs=axis)),
                learning_rate=first_learning_rate(cfg, saved[run] + rounds),
                seconds=seconds,
                states=state,
                axis=axis,
            )
            for run, cfg in enumerate(cfgs)
            if saved[run] + rounds <= epochs
        ]


def first_state(cfg: Config, start: Saved) -> TrainState:
    """A run's state where it starts."""
    if start.state is not None:
        return start.state
    return compiled_initial_state(cfg)(jax.random.key(cfg.seed))


def first_learning_rate(cfg: Config, epoch: int) -> float:
    """The learning rate at the first step of an epoch."""
    return float(learning_rate(traceable(cfg), jnp.int32((epoch - 1) * cfg.steps_per_epoch)))
