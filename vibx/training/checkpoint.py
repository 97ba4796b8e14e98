"""Checkpoints of one run: its latest train state, whole or not at all."""

import logging
import shutil
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from vibx.config import Config
from vibx.errors import FailedRunError
from vibx.training.state import TrainState, state_shape

SPARE_BYTES = 1_000_000  # orbax's own files, and the record that follows

logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs tracebacks that it also raises


class Checkpoints:
    """The latest checkpoint in a directory; use as a context manager.

    Writing is synchronous: the next epoch reuses (donates) the state's memory.
    """

    def __init__(self, directory: Path):
        self._directory = directory.absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def epoch(self) -> int | None:
        """Number of epochs behind the latest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, epoch: int, state: TrainState) -> None:
        """Write the state after `epoch` epochs; nothing if that one is there already.

        Raises:
          FailedRunError: the disk does not take it; the checkpoint before it stays.
        """
        if epoch == self.epoch:
            return
        self._require_space(sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        try:
            self._manager.save(epoch, args=ocp.args.StandardSave(state._asdict()))
        except (OSError, ValueError) as error:  # orbax: ValueError from its writer
            for partial in self._directory.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(partial, ignore_errors=True)
            reason = str(error).splitlines()[0]
            raise FailedRunError(f"cannot write a checkpoint: {reason}") from error

    def _require_space(self, size: int) -> None:
        """Refuse early: a disk that fills up under orbax ends in tracebacks of its threads."""
        free = shutil.disk_usage(self._directory).free
        if free < size + SPARE_BYTES:
            raise FailedRunError(
                f"cannot write a checkpoint of {size / 1e6:.1f} MB in {self._directory}: "
                f"{free / 1e6:.1f} MB are free on the disk"
            )

    def restore(self, cfg: Config) -> TrainState:
        """Read the latest state of a configuration's run."""
        shapes = state_shape(cfg)
        state = self._manager.restore(self.epoch, args=ocp.args.StandardRestore(shapes._asdict()))
        return TrainState(**state)
