"""Processes that work on one store at once."""

import subprocess

import pytest

from tests import processes
from tests.faults.scale import only_in_full
from tests.faults.stores import SHORT, WORK, assert_told, redo, undisturbed

READING = [["runs", "root=runs"], ["runs", "root=runs", "verify=true"]]
RUNS_OF_THE_SWEEP = [["train", *SHORT, f"seed={seed}"] for seed in range(4)]
MIXES = {
    "one run": ("training", [WORK["training"]] * 8),
    "one sweep": ("sweep", [WORK["sweep"]] * 8),
    "one attack": ("attack", [WORK["attack"]] * 8),
    "the runs of a sweep, and readers": ("sweep", RUNS_OF_THE_SWEEP + READING * 2),
    "a drawing, and readers": ("drawing", [WORK["drawing"]] * 4 + READING * 2),
}


@pytest.mark.parametrize(
    "mix", [pytest.param(mix, marks=() if mix == "one sweep" else only_in_full) for mix in MIXES]
)
def test_eight_processes_leave_what_one_would_have(mix, cache, finished_run, tmp_path, tally):
    name, commands = MIXES[mix]
    expected = undisturbed(name, tmp_path, finished_run)
    directory = expected.prepared
    started = [processes.start(directory, *command) for command in commands]
    for process, command in zip(started, commands, strict=True):
        out, err = process.communicate(timeout=600)
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        # 1: another is at it; 2: there is nothing to read yet.
        assert_told(done, codes=(0, 2) if command in READING else (0, 1))
    redo(directory, name, expected)
    tally(f"8 processes: {mix}", tried=len(commands), survived=len(commands))
