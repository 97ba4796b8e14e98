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
from vibx.training.state import Program, TrainState, split
from vibx.training.step import compiled_epoch, compiled_initial_state


class Epoch(NamedTuple):
    """An epoch of one run: means over its images while the weights moved, its share of the time."""

    run: int  # its place in the group
    number: int
    objective: float
    distortion: float
    rate: float
    learning_rate: float
    seconds: float
    states: TrainState  # of all lanes
    lanes: int

    @property
    def state(self) -> TrainState:
        """The run's state; valid until the next epoch is asked for, which reuses its memory."""
        return one_of(self.states, self.run, runs=self.lanes)


def start(program: Program, cfg: Config, checkpoints: Checkpoints) -> TrainState:
    """A run's state at its latest checkpoint, or before the first step."""
    if checkpoints.epoch:
        return checkpoints.restore(program)
    return compiled_initial_state(program)(jax.random.key(cfg.seed))


def train(
    cfgs: Sequence[Config], images: Images, checkpoints: Sequence[Checkpoints], *, lanes: int
) -> Iterator[list[Epoch]]:
    """Train runs of one program from their checkpoints, and yield their epochs of each round.

    A run that is through, or whose objective is no longer finite, goes on unseen until the others
    are through too: it does not touch them.

    Args:
      cfgs: configurations of the runs.
      images: what all of them are trained on.
      checkpoints: of each run, where it starts.
      lanes: runs that the compiled program trains at once; spare ones repeat the last run.
    """
    (program,) = {split(cfg)[0] for cfg in cfgs}
    pairs = zip(cfgs, checkpoints, strict=True)
    state = stacked(padded([start(program, *pair) for pair in pairs], lanes=lanes))
    numbers = stacked(padded([split(cfg)[1] for cfg in cfgs], lanes=lanes))
    seeds = [jax.random.key_data(jax.random.key(cfg.seed)) for cfg in cfgs]
    key = jax.random.wrap_key_data(stacked(padded(seeds, lanes=lanes)))
    images = shared(images, runs=lanes)
    run_epoch = compiled_epoch(program, len(images.labels), runs=lanes)
    behind = [c.epoch or 0 for c in checkpoints]
    for ahead in range(1, program.epochs - min(behind) + 1):
        begin = time.perf_counter()
        state, measurements = jax.block_until_ready(run_epoch(state, images, numbers, key))
        seconds = (time.perf_counter() - begin) / len(cfgs)
        epochs = []
        for run, cfg in enumerate(cfgs):
            number = behind[run] + ahead
            if number <= program.epochs:
                objective, distortion, rate = map(float, one_of(measurements, run, runs=lanes))
                epochs.append(
                    Epoch(
                        run=run,
                        number=number,
                        objective=objective,
                        distortion=distortion,
                        rate=rate,
                        learning_rate=learning_rate(cfg, program, number),
                        seconds=seconds,
                        states=state,
                        lanes=lanes,
                    )
                )
        yield epochs


def learning_rate(cfg: Config, program: Program, epoch: int) -> float:
    """The learning rate at the first step of an epoch."""
    step = jnp.int32((epoch - 1) * program.steps_per_epoch)
    return float(split(cfg)[1].learning_rate * program.schedule_fraction(step))
