"""What work leaves in a store, to be compared with what it left undisturbed."""

import json
import os
import re
import shutil
import time
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from tests import processes
from tests.faults.scale import times
from tests.processes import TINY, final_state
from tests.records import write_experiment
from vibx import store
from vibx.files import LOCK

SHORT = [*TINY, "data.train_images=2000", f"epochs={times(4, short=2)}", "checkpoint_every=1"]
ATTACK = ["attack.iterations=20", "attack.search_steps=2", "n=500", "root=runs"]
WORK = {
    "training": ["train", *SHORT],
    "sweep": ["train", "-m", *SHORT, f"seed=range({times(4, short=2)})"],
    "sweep together": [
        *("train", "-m", *SHORT, f"seed=range({times(8, short=3)})"),
        f"hydra.launcher.runs_at_once={times(4, short=2)}",
    ],
    "attack": ["attack", *ATTACK],
    "drawing": ["figures", "root=runs", "output=drawn"],
}
CODES = {"drawing": 1}  # of work that ends well: other drawings lack their runs
# What differs from time to time.
IN_RECORDS = ("provenance", "files", "sha256", "seconds", "images_per_second")
NOT_COMPARED = (store.LOG, LOCK)


class Undisturbed(NamedTuple):
    """What a command leaves where nothing goes wrong."""

    prepared: os.PathLike
    content: dict
    seconds: float


def prepare(directory, name, attacked):
    """What has to be there before a kind of work."""
    directory.mkdir(parents=True, exist_ok=True)
    if name == "attack":
        shutil.copytree(attacked, directory / "runs")
    if name == "drawing":
        for experiment in ("figure2", "figure1b"):
            write_experiment(directory / "runs", experiment, scale="smoke")


def undisturbed(name, directory, attacked):
    """Do the work where nothing disturbs it; an attack is one on a copy of the store `attacked`."""
    prepared, whole = directory / "prepared", directory / "whole"
    prepare(prepared, name, attacked)
    shutil.copytree(prepared, whole)
    start = time.monotonic()
    done = processes.run(whole, *WORK[name])
    seconds = time.monotonic() - start
    assert done.returncode == CODES.get(name, 0), done.stderr
    return Undisturbed(prepared, content(whole), seconds)


def redo(directory, name, expected):
    """Give the command again, and compare what it leaves with what it would have left alone.

    What was finished before is left as it was.
    """
    finished = {path: path.stat().st_mtime_ns for path in directory.rglob(store.METRICS)}
    done = processes.run(directory, *WORK[name])
    assert done.returncode == CODES.get(name, 0), done.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    found = content(directory)
    changed = {path: (found.get(path), left) for path, left in expected.content.items()}
    changed = {path: pair for path, pair in changed.items() if pair[0] != pair[1]}
    assert not changed, changed
    assert found.keys() == expected.content.keys(), found.keys() ^ expected.content.keys()


def content(directory):
    """All that was written, by path, without what differs from time to time; states to the bit."""
    found = {}
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if (
            path.is_file()
            and path.name not in NOT_COMPARED
            and store.CHECKPOINTS not in inside.parts
        ):
            found[str(inside)] = compared(path)
    for path in directory.glob("runs/*/checkpoints/*"):
        run = path.parents[1]
        found[str(path.relative_to(directory))] = (
            [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(final_state(run))]
            if store.is_finished(run)
            else None
        )
    return found


def compared(path):
    if path.name == store.HISTORY:
        return pd.read_csv(path).drop(columns="seconds").to_csv()
    if path.suffix == ".json":
        return without(json.loads(path.read_text()))
    return path.read_bytes()


def without(value):
    if isinstance(value, dict):
        return {key: without(item) for key, item in value.items() if key not in IN_RECORDS}
    return value


def assert_told(done, *, codes):
    """An exit code of these, and at most one line of error, which is no traceback."""
    assert done.returncode in codes, done.stderr
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    errors = re.findall(r"^vibx(?: \w+)?: .*$", done.stderr, re.MULTILINE)
    assert len(errors) <= 1, done.stderr
    assert bool(errors) == (done.returncode != 0), done.stderr
