"""Processes that work on one store at once."""

import pytest

from tests import processes
from tests.faults.scale import cases, times
from tests.faults.stores import SHORT, WORK, assert_told, redo

READING = [["runs", "root=runs"], ["runs", "root=runs", "verify=true"]]
RUNS_OF_THE_SWEEP = [["train", *SHORT, f"seed={seed}"] for seed in range(4)]
MIXES = {
    "one run": ("training", [WORK["training"]] * 8),
    "one sweep": ("sweep", [WORK["sweep"]] * 8),
    "one attack": ("attack", [WORK["attack"]] * 8),
    "the runs of a sweep, and readers": ("sweep", RUNS_OF_THE_SWEEP + READING * 2),
    "a drawing, and readers": ("drawing", [WORK["drawing"]] * 4 + READING * 2),
}


@pytest.mark.parametrize("mix", cases(MIXES, short=["one sweep"]))
def test_processes_at_once_leave_what_one_would_have(mix, undisturbed, tmp_path, tally):
    name, commands = MIXES[mix]
    commands = commands[: times(8, short=2)]
    expected = undisturbed(name)
    directory = expected.prepared
    streams = [(tmp_path / f"{i}.out", tmp_path / f"{i}.err") for i in range(len(commands))]
    started = [
        processes.fork(directory, *command, streams=written)
        for command, written in zip(commands, streams, strict=True)
    ]
    for process, command, written in zip(started, commands, streams, strict=True):
        process.join(600)
        done = processes.completed(command, process, written)
        # 1: another is at it; 2: there is nothing to read yet.
        assert_told(done, codes=(0, 2) if command in READING else (0, 1))
    redo(directory, name, expected)
    tally(f"{len(commands)} processes at once: {mix}", tried=len(commands))
