"""The run store: one directory per run, its record, and how to find finished runs.

Imports no jax: tables and figures read records through this module.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

import vibx
from vibx.errors import UserError

SCHEMA = 1
Record = dict[str, Any]


class StoredRun(NamedTuple):
    """A finished run: its directory and its record."""

    directory: Path
    record: Record


class StoredAttack(NamedTuple):
    """A finished attack on a run: the run, where the result is, and its record."""

    run: StoredRun
    directory: Path
    record: Record


METRICS = "metrics.json"
HISTORY = "history.csv"
PREDICTIONS = "predictions.npz"
EMBEDDING = "embedding.npz"
CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
WEIGHTS = "model.safetensors"  # of an exported run, in place of checkpoints
ATTACKS = "attacks"  # a directory for each attack on the run
ADVERSARIAL = "adversarial.npz"
LOG = "train.log"
LOCK = ".lock"


class RunError(UserError):
    """A run or a record that cannot be used; one line that says what to do."""


class LockedError(RunError):
    """Another process is working on the run: it is started, and not finished."""

    exit_code = 1


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_arrays(path: Path, **arrays: npt.ArrayLike) -> None:
    """Write a compressed .npz, whole."""
    buffer = io.BytesIO()
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez_compressed(buffer, **plain)  # type: ignore[arg-type]  # allow_pickle is not in it
    write_whole(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an .npz that a run left.

    Raises:
      RunError: it is missing.
    """
    if not path.exists():
        raise RunError(f"{path}: missing; train that run again with force=true")
    with np.load(path) as arrays:
        return dict(arrays)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole; a number that is not finite is refused."""
    write_whole(path, f"{json.dumps(content, indent=2, allow_nan=False)}\n".encode())


def write_config(directory: Path, config: dict[str, Any]) -> None:
    """Write config.yaml."""
    write_whole(directory / CONFIG, yaml.safe_dump(config, sort_keys=False).encode())


def write_history(directory: Path, rows: list[dict[str, Any]]) -> None:
    """Write history.csv, a row per epoch."""
    write_whole(directory / HISTORY, pd.DataFrame(rows).to_csv(index=False).encode())


def read_history(directory: Path, *, until_epoch: int) -> list[dict[str, Any]]:
    """Rows of history.csv up to an epoch: those that a resumed run keeps."""
    path = directory / HISTORY
    if until_epoch == 0 or not path.exists():
        return []
    history = pd.read_csv(path)
    kept = history[history["epoch"] <= until_epoch].astype(object)
    rows = kept.where(kept.notna(), None).to_dict("records")
    return [{str(column): value for column, value in row.items()} for row in rows]


def unfinished(root: Path) -> dict[str, str]:
    """The runs without a record, by run_id, and how far their history goes."""
    found = {}
    for directory in sorted(root.iterdir()):
        if (directory / CONFIG).exists() and not is_finished(directory):
            history = directory / HISTORY
            epoch = pd.read_csv(history)["epoch"].max() if history.exists() else 0
            found[directory.name] = f"unfinished, saved after epoch {epoch}"
    return found


@contextlib.contextmanager
def lock(directory: Path, *, work: str = "trained") -> Iterator[None]:
    """Hold the directory of a run, or of other work on it, against other processes.

    Raises:
      LockedError: another process holds it.
    """
    try:
        with filelock.FileLock(directory / LOCK, timeout=0):
            yield
    except filelock.Timeout:
        raise LockedError(f"{directory.name} is being {work} by another process") from None


def clear(directory: Path) -> None:
    """Remove what work left in a directory, its record first."""
    (directory / METRICS).unlink(missing_ok=True)
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (LOCK, LOG):
            path.unlink()


def is_finished(directory: Path) -> bool:
    """Whether the run has its record."""
    return (directory / METRICS).exists()


def read_record(directory: Path) -> Record:
    """Read and check a finished run's record.

    Raises:
      RunError: it is unreadable, of another schema, or holds a number that is not finite.
    """
    return _read_metrics(directory, {"run_id", "config", "train", "epochs", "provenance"})


def attack_directory(run: StoredRun, name: str) -> Path:
    """Where what an attack on a run finds is kept."""
    return run.directory / ATTACKS / name


def is_attacked(run: StoredRun, name: str) -> bool:
    """Whether the attack on the run has its record."""
    return is_finished(attack_directory(run, name))


def read_attack(run: StoredRun, name: str) -> StoredAttack:
    """Read and check what an attack on a run found, as `read_record`."""
    directory = attack_directory(run, name)
    found = "checks" if name.startswith("audit") else "accuracy_recheck"
    record = _read_metrics(directory, {"run_id", "attack", found, "provenance"})
    return StoredAttack(run, directory, record)


def read_runs(root: Path) -> list[StoredRun]:
    """All finished runs in a store, by run_id."""
    if not root.is_dir():
        raise RunError(f"{root}: no such directory; `vibx train` makes one")
    return [StoredRun(d, read_record(d)) for d in sorted(root.iterdir()) if is_finished(d)]


def read_records(root: Path) -> list[Record]:
    """The records of all finished runs in a store, by run_id."""
    return [record for _, record in read_runs(root)]


def held_out_name(record: Record) -> str:
    """`test`, or `validation` where the run held a split of the training images out."""
    return "test" if "test" in record else "validation"


def matching(records: list[Record], conditions: str) -> list[Record]:
    """Records whose configuration satisfies `key=value` conditions joined by commas.

    A key is a path in the configuration (`beta`, `data.validation`), a group's name stands for
    its choice (`objective=vib`), and a bare word is a part of the run_id. Of conditions on the
    same key one has to hold: `beta=0,beta=1e-3` is either.

    Raises:
      RunError: a key that no record has.
    """
    alternatives: dict[str, list[str]] = {}
    for condition in filter(None, conditions.split(",")):
        key, equals, value = (part.strip() for part in condition.partition("="))
        if equals:
            alternatives.setdefault(key, []).append(value)
        else:
            records = [r for r in records if key in r["run_id"]]
    for key, values in alternatives.items():
        known = [r for r in records if _has(r["config"], key)]
        if records and not known:
            raise RunError(f"runs={key}={values[0]}: no run has the key {key}")
        records = [r for r in known if any(_same(_get(r["config"], key), v) for v in values)]
    return records


def select(root: Path, conditions: str, *, key: str = "runs") -> list[StoredRun]:
    """The finished runs of a store that satisfy the conditions of `matching`, the value of a key.

    Raises:
      RunError: there is none.
    """
    found = among(read_runs(root), conditions)
    if not found:
        raise RunError(f"{key}={conditions}: no finished run in {root} matches; see vibx runs")
    return found


def among(stored: list[StoredRun], conditions: str) -> list[StoredRun]:
    """The runs that satisfy the conditions of `matching`."""
    records = matching([run.record for run in stored], conditions)
    run_ids = {record["run_id"] for record in records}
    return [run for run in stored if run.record["run_id"] in run_ids]


def provenance(*, device: str, start: str, end: str) -> dict[str, Any]:
    """Where a record comes from: versions, commit, device, times (UTC) and the command.

    The command goes without its `root`: a record can move to another store.
    """
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "hydra-core")
    return {
        "vibx": vibx.__version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "device": device,
        "start": start,
        "end": end,
        "command": " ".join(arg for arg in sys.argv if not arg.startswith("root=")),
    }


def _read_metrics(directory: Path, needed: set[str]) -> Record:
    path = directory / METRICS
    try:
        record = json.loads(path.read_text(), parse_constant=_not_finite)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: cannot be used ({error}); make it again with force=true"
        ) from error
    if record.get("schema") != SCHEMA:
        raise RunError(f"{path}: schema {record.get('schema')}, this version reads {SCHEMA}")
    missing = needed - record.keys()
    if missing:
        raise RunError(f"{path}: lacks {', '.join(sorted(missing))}")
    return record


def _not_finite(constant: str) -> float:
    raise ValueError(f"holds {constant}")


def _has(config: dict[str, Any], key: str) -> bool:
    head, _, rest = key.partition(".")
    if head not in config:
        return False
    return not rest or (isinstance(config[head], dict) and _has(config[head], rest))


def _get(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value["name"] if isinstance(value, dict) else value


def _same(value: Any, text: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            return math.isclose(value, float(text), rel_tol=1e-9)
    return str(value) == text or (value is None and text == "null")


def _git_commit() -> str | None:
    """The checkout's commit, with `+` when the package differs from it; None outside one."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", ".")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def _git(*args: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
