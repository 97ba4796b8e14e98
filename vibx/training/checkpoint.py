"""Checkpoints of one run: its train state and its history, each whole and as written, or not used.

A checkpoint is a directory `checkpoints/<epoch>/` with orbax's files of the state and a manifest
that says which run and epoch it is of, has the history, and is sealed with the files' SHA-256.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from vibx import store
from vibx.config import Config
from vibx.errors import DamagedError, FailedRunError
from vibx.files import write_sealed
from vibx.training.state import TrainState, state_shape

SPARE_BYTES = 1_000_000  # orbax's own files, and the record that follows
STATE = "default"  # the state's directory in a checkpoint, as orbax's own manager calls it

Row = dict[str, Any]  # of history.csv

logger = logging.getLogger(__name__)
logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs tracebacks that it also raises


class Saved(NamedTuple):
    """A run after some epochs, and the provenance of each process that trained them.

    The state is None before the first one.
    """

    epoch: int
    state: TrainState | None
    history: list[Row]
    processes: Sequence[dict[str, Any]] = ()


class Checkpoints:
    """The last two checkpoints of a run in its directory."""

    def __init__(self, directory: Path, cfg: Config):
        self.cfg = cfg
        self._run = directory
        self._root = (directory / store.CHECKPOINTS).absolute()
        self._latest: int | None = None  # that is known to be whole

    def latest(self) -> Saved:
        """Read the newest checkpoint that is whole; says so if that is not the newest.

        Raises:
          DamagedError: there should be one, and none is whole.
        """
        problems = []
        for epoch in store.checkpoints(self._run):
            try:
                saved = self.read(epoch)
            except store.RunError as error:
                problems.append(str(error).partition("; ")[0])
                continue
            for problem in problems:
                which = problem.removeprefix(f"{self._root}/")  # short: it is one line
                told = "%s: checkpoint %s; going on from epoch %d"
                logger.warning(told, self.cfg.run_id, which, epoch)
            return saved
        if not problems and (self._run / store.HISTORY).exists():
            problems = [f"{self._root}: gone, of a run with {store.HISTORY}"]
        if problems:
            more = f" (and {len(problems) - 1} before it)" if len(problems) > 1 else ""
            raise DamagedError(f"{problems[0]}{more}; force=true starts over")
        return Saved(0, None, [])

    def read(self, epoch: int) -> Saved:
        """Read the checkpoint after an epoch; the state is on the host.

        Raises:
          DamagedError: it is not as it was written, or of another structure than the run's.
        """
        directory = self._root / str(epoch)
        manifest = store.read_manifest(directory, self.cfg.run_id)
        shapes = state_shape(self.cfg)
        other = f"{directory}: no state of this version of vibx; {store.CHECKPOINT_REMEDY}"
        if manifest["arrays"] != arrays_of(shapes):  # orbax would cut or fill them up in silence
            raise DamagedError(other)
        restore = ocp.args.StandardRestore(shapes._asdict())
        try:
            state = _orbax().restore(directory / STATE, args=restore)
        except Exception as error:  # of whatever version of orbax wrote or reads it
            raise DamagedError(other) from error
        self._latest = epoch
        state = TrainState(**jax.device_get(state))
        return Saved(epoch, state, manifest["history"], manifest.get("processes", []))

    def save(self, saved: Saved) -> None:
        """Write a checkpoint, and keep it and the whole one before it.

        Writing is synchronous: the next epoch reuses (donates) the state's memory.

        Raises:
          FailedRunError: the disk does not take it; those before it stay.
        """
        assert saved.state is not None
        partial = self._root / f".{saved.epoch}.partial"
        try:
            self._root.mkdir(exist_ok=True)
            self._remove(*self._root.glob(".*.partial"))  # of a killed process
            self._require_space(sum(leaf.nbytes for leaf in jax.tree.leaves(saved.state)))
            _orbax().save(partial / STATE, args=ocp.args.StandardSave(saved.state._asdict()))
            content = {
                "run_id": self.cfg.run_id,
                "epoch": saved.epoch,
                "arrays": arrays_of(saved.state),
                "history": saved.history,
                "processes": list(saved.processes),
            }
            files = sorted(str(p.relative_to(partial)) for p in partial.rglob("*") if p.is_file())
            write_sealed(partial / store.MANIFEST, content, files=files)
            self._remove(self._root / str(saved.epoch))  # was not whole
            partial.rename(self._root / str(saved.epoch))
        except (OSError, ValueError) as error:  # orbax: ValueError from its writer
            shutil.rmtree(partial, ignore_errors=True)
            reason = str(error).splitlines()[0]
            raise FailedRunError(f"cannot write a checkpoint: {reason}") from error
        self._keep(saved.epoch, self._latest)
        self._latest = saved.epoch

    def keep_latest(self) -> None:
        """Remove all but the latest one."""
        self._keep(self._latest)

    def _keep(self, *epochs: int | None) -> None:
        found = store.checkpoints(self._run).items()
        self._remove(*(path for epoch, path in found if epoch not in epochs))

    def _remove(self, *directories: Path) -> None:
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)

    def _require_space(self, size: int) -> None:
        """Refuse early: a disk that fills up under orbax ends in tracebacks of its threads."""
        free = shutil.disk_usage(self._root).free
        if free < size + SPARE_BYTES:
            raise FailedRunError(
                f"cannot write a checkpoint of {size / 1e6:.1f} MB in {self._root}: "
                f"{free / 1e6:.1f} MB are free on the disk"
            )


def arrays_of(state: TrainState) -> dict[str, str]:
    """What a state is made of: the type and shape of every array, by its path."""
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _orbax() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())
