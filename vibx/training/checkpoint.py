"""Checkpoints of one run: its latest train state, whole or not at all."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from vibx.training.state import Program, TrainState, initial_state


class Checkpoints:
    """The latest checkpoint in a directory; use as a context manager.

    Writing is synchronous: the next epoch reuses (donates) the state's memory.
    """

    def __init__(self, directory: Path):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def epoch(self) -> int | None:
        """Number of epochs behind the latest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, epoch: int, state: TrainState) -> None:
        """Write the state after `epoch` epochs; nothing if that one is there already."""
        if epoch != self.epoch:
            self._manager.save(epoch, args=ocp.args.StandardSave(state._asdict()))

    def restore(self, program: Program) -> TrainState:
        """Read the latest state."""
        shapes = jax.eval_shape(lambda: initial_state(program, jax.random.key(0)))
        state = self._manager.restore(self.epoch, args=ocp.args.StandardRestore(shapes._asdict()))
        return TrainState(**state)
