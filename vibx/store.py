"""The run store: one directory per run, its record, and how to find finished runs.

Imports no jax: tables and figures read records through this module.
"""

import contextlib
import csv
import io
import json
import math
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import vibx
from vibx.errors import DamagedError, RunError
from vibx.files import (
    FILES,
    LOCK,
    REMEDY,
    Arrays,
    arrays_in,
    damaged,
    lock,
    read_listed,
    read_sealed,
    write_sealed,
    write_whole,
)

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
EVALUATION = "evaluation-mc"  # with another number of samples, which follows
MANIFEST = "manifest.json"  # of a checkpoint
CARD = "README.md"  # of an exported run
LOG = "train.log"
AGAIN, WHOLE = "again", "whole"  # a record that is made anew while the old one is still there
LEFT = (CONFIG, HISTORY, PREDICTIONS, EMBEDDING, ADVERSARIAL, WEIGHTS, CARD)  # and sealed

PATHS = "root=", "output=", "weights="  # arguments that are of one machine
CHECKPOINT_REMEDY = "train that run again with force=true"
WEIGHTS_REMEDY = "export them again with vibx export"


def write_record(directory: Path, record: Record) -> Record:
    """Write metrics.json, sealed with the SHA-256 of what else is there of a record; returns it.

    Raises:
      ValueError: a number is not finite.
    """
    json.dumps(record, allow_nan=False)
    left = [name for name in LEFT if (directory / name).exists()]
    return write_sealed(directory / METRICS, record, files=left)


def read_file(stored: StoredRun | StoredAttack, name: str) -> bytes:
    """Read a file that a run or an attack left.

    Raises:
      RunError: it is missing, or (DamagedError) not as it was written.
    """
    return read_listed(stored.directory, name, stored.record[FILES])


def read_arrays(stored: StoredRun | StoredAttack, name: str) -> Arrays:
    """Read the arrays of an .npz, as `read_file`."""
    return arrays_in(read_file(stored, name))


def write_evaluation(run: StoredRun, sections: dict[str, Any], *, mc_samples: int) -> None:
    """Write an evaluation with another number of samples beside the run's record, sealed."""
    content = {"run_id": run.record["run_id"], **sections}
    write_sealed(run.directory / f"{EVALUATION}{mc_samples}.json", content, files=())


def write_config(directory: Path, config: dict[str, Any]) -> None:
    """Write config.yaml."""
    write_whole(directory / CONFIG, yaml.safe_dump(config, sort_keys=False).encode())


def write_history(directory: Path, rows: list[dict[str, Any]]) -> None:
    """Write history.csv, a row per epoch; what an epoch has no number for stays empty."""
    table = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(directory / HISTORY, table.getvalue().encode())


def unfinished(root: Path) -> dict[str, str]:
    """The runs without a record, by run_id, and how far their checkpoints go."""
    return {
        directory.name: f"unfinished, saved after epoch {max(checkpoints(directory), default=0)}"
        for directory in sorted(root.iterdir())
        if (directory / CONFIG).exists() and not is_finished(directory)
    }


def checkpoints(directory: Path) -> dict[int, Path]:
    """The checkpoints of a run by their epoch, the newest first."""
    found = [path for path in (directory / CHECKPOINTS).glob("[0-9]*") if path.name.isdigit()]
    return {int(path.name): path for path in sorted(found, key=lambda p: -int(p.name))}


def read_manifest(checkpoint: Path, run_id: str) -> dict[str, Any]:
    """What a checkpoint says of itself, once all its files are found as they were written.

    Raises:
      DamagedError: they are not, or are those of another run or epoch.
    """
    manifest = read_sealed(checkpoint / MANIFEST, remedy=CHECKPOINT_REMEDY)
    own = {"run_id": run_id, "epoch": int(checkpoint.name)}
    for key, value in own.items():
        if manifest.get(key) != value:
            raise DamagedError(
                f"{checkpoint}: is of {key}={manifest.get(key)}; {CHECKPOINT_REMEDY}"
            )
    for problem in damaged(checkpoint, manifest[FILES], remedy=CHECKPOINT_REMEDY):
        raise DamagedError(problem)
    return manifest


def has_weights(run: StoredRun) -> bool:
    """Whether a run's weights are there; `vibx.training.weights` finds out if they are whole."""
    return (run.directory / WEIGHTS).exists() or bool(checkpoints(run.directory))


def require_weights(run: StoredRun) -> None:
    """Raise RunError where a run has no weights."""
    if not has_weights(run):
        remedy = WEIGHTS_REMEDY if "exported" in run.record else CHECKPOINT_REMEDY
        raise RunError(f"{run.directory} has no weights: {remedy}")


def has_whole_checkpoint(directory: Path, run_id: str) -> bool:
    """Whether a run can go on from one of its checkpoints."""
    for checkpoint in checkpoints(directory).values():
        with contextlib.suppress(RunError):
            read_manifest(checkpoint, run_id)
            return True
    return False


@contextlib.contextmanager
def working(directory: Path, *, work: str, force: bool) -> Iterator[Path]:
    """Hold a directory and yield where to work: there, or below it until a new record is whole.

    What is finished is made anew, by `force`, in a directory of its own, and only then removed.
    A directory in which nothing is left is removed.

    Raises:
      LockedError: another process holds it.
    """
    with lock(directory, work=work):
        take_over(directory)
        place = directory / AGAIN if force and is_finished(directory) else directory
        place.mkdir(exist_ok=True)
        if force and place == directory:
            clear(directory)
        try:
            yield place
        finally:
            take_over(directory)
            for path in (place, directory):
                if path.exists() and {entry.name for entry in path.iterdir()} <= {LOCK, LOG}:
                    shutil.rmtree(path)


def take_over(directory: Path) -> None:
    """Put a record that was made anew in the place of the old one, if it is whole.

    Killed anywhere in it, it goes on where it was.
    """
    whole = directory / WHOLE
    if is_finished(directory / AGAIN):
        clear(directory, but=AGAIN)
        (directory / AGAIN).rename(whole)
    if whole.exists():
        for path in sorted(whole.iterdir(), key=lambda path: path.name == METRICS):
            path.replace(directory / path.name)
        whole.rmdir()


def clear(directory: Path, *, but: str | None = None) -> None:
    """Remove what work left in a directory, its record first."""
    (directory / METRICS).unlink(missing_ok=True)
    for path in directory.iterdir():
        if path.name in (LOCK, LOG, but):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def is_finished(directory: Path) -> bool:
    """Whether the run has its record."""
    return (directory / METRICS).exists()


def read_record(directory: Path) -> Record:
    """Read and check a finished run's record.

    Raises:
      DamagedError: it is unreadable, not as it was written, or of another run than the directory.
      RunError: it is of another schema.
    """
    record = _read_metrics(directory, {"run_id", "config", "train", "epochs", "provenance"})
    if record["run_id"] != directory.name:
        raise DamagedError(
            f"{directory / METRICS}: is the record of {record['run_id']}, and the directory has to "
            "be called so"
        )
    return record


def attack_directory(run: StoredRun, name: str) -> Path:
    """Where what an attack on a run finds is kept."""
    return run.directory / ATTACKS / name


def has_attacks(run: StoredRun) -> bool:
    """Whether anything is there of attacks on the run."""
    return (run.directory / ATTACKS).is_dir()


def is_attacked(run: StoredRun, name: str) -> bool:
    """Whether the attack on the run has its record."""
    return is_finished(attack_directory(run, name))


def read_attack(run: StoredRun, name: str) -> StoredAttack:
    """Read and check what an attack on a run found, as `read_record`."""
    directory = attack_directory(run, name)
    found = "checks" if name.startswith("audit") else "accuracy_recheck"
    record = _read_metrics(directory, {"run_id", "attack", found, "provenance"})
    if record["run_id"] != run.record["run_id"]:
        raise DamagedError(
            f"{directory / METRICS}: is an attack on {record['run_id']}, not on "
            f"{run.record['run_id']}; {REMEDY}"
        )
    return StoredAttack(run, directory, record)


class Found(NamedTuple):
    """Finished runs, and a line for each that cannot be used."""

    runs: list[StoredRun]
    problems: list[str]


def read_runs(root: Path) -> Found:
    """All finished runs in a store, by run_id."""
    if not root.is_dir():
        raise RunError(f"{root}: no such directory; `vibx train` makes one")
    found = Found([], [])
    for directory in sorted(root.iterdir()):
        if is_finished(directory):
            try:
                found.runs.append(StoredRun(directory, read_record(directory)))
            except RunError as error:
                found.problems.append(str(error))
    return found


def held_out_name(record: Record) -> str:
    """`test`, or `validation` where the run held a split of the training images out."""
    return "test" if "test" in record else "validation"


def matching(records: list[Record], conditions: str, *, key: str = "runs") -> list[Record]:
    """Records whose configuration satisfies `key=value` conditions joined by commas.

    A key is a path in the configuration (`beta`, `data.validation`), a group's name stands for
    its choice (`objective=vib`), and a bare word is a part of the run_id. Of conditions on the
    same key one has to hold: `beta=0,beta=1e-3` is either. An error names `key`, whose value they
    are.

    Raises:
      RunError: a key that no record has.
    """
    alternatives: dict[str, list[str]] = {}
    for condition in filter(None, conditions.split(",")):
        name, equals, value = (part.strip() for part in condition.partition("="))
        if equals:
            alternatives.setdefault(name, []).append(value)
        else:
            records = [r for r in records if name in r["run_id"]]
    for name, values in alternatives.items():
        known = [r for r in records if _has(r["config"], name)]
        if records and not known:
            raise RunError(f"{key}={name}={values[0]}: no run has the key {name}")
        records = [r for r in known if any(_same(_get(r["config"], name), v) for v in values)]
    return records


def select(root: Path, conditions: str, *, key: str = "runs") -> Found:
    """The finished runs of a store that satisfy the conditions of `matching`, the value of a key.

    Raises:
      RunError: there is none, and none that cannot be used.
    """
    stored, problems = read_runs(root)
    found = among(stored, conditions, key=key)
    if not found and not problems:
        raise RunError(f"{key}={conditions}: no finished run in {root} matches; see vibx runs")
    return Found(found, problems)


def among(stored: list[StoredRun], conditions: str, *, key: str = "runs") -> list[StoredRun]:
    """The runs that satisfy the conditions of `matching`."""
    records = matching([run.record for run in stored], conditions, key=key)
    run_ids = {record["run_id"] for record in records}
    return [run for run in stored if run.record["run_id"] in run_ids]


def provenance(*, device: str, start: str, end: str) -> dict[str, Any]:
    """Where a record comes from: versions, commit, device, times (UTC) and the command.

    The command goes without paths of this machine: a record can move to another store.
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
        "command": " ".join(arg for arg in sys.argv if not arg.startswith(PATHS)),
    }


def _read_metrics(directory: Path, needed: set[str]) -> Record:
    path = directory / METRICS
    record = read_sealed(path)
    if record.get("schema") != SCHEMA:
        raise RunError(f"{path}: schema {record.get('schema')}, this version reads {SCHEMA}")
    missing = needed - record.keys()
    if missing:
        raise RunError(f"{path}: lacks {', '.join(sorted(missing))}")
    return record


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
    """The checkout's commit, with `+` when the package differs from it; None outside one.

    A package that is installed below another project's repository is not tracked there.
    """
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", ".")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def _git(*args: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
