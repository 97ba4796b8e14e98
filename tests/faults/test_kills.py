"""kill -9 at random moments, and the same command again: what it would have left alone."""

import random
import shutil

import pytest

from tests import processes
from tests.faults.scale import cases, times
from tests.faults.stores import WORK, redo, undisturbed


def killed(directory, command, *, after):
    """Start a command and kill it after some seconds; whether it was still at work."""
    process = processes.fork(directory, *command)
    process.join(after)
    at_work = process.exitcode is None
    process.kill()
    process.join()
    return at_work


@pytest.mark.parametrize("name", cases(WORK, short=["training", "sweep together", "attack"]))
def test_after_kills_the_same_command_leaves_what_it_would_have(
    name, cache, finished_run, tmp_path, tally
):
    expected = undisturbed(name, tmp_path, finished_run)
    moments = random.Random(name)
    kills, wanted = 0, times(50, short=1)
    while kills < wanted:
        directory = tmp_path / f"killed-{kills}"
        shutil.copytree(expected.prepared, directory)
        while kills < wanted and killed(
            directory, WORK[name], after=moments.uniform(0, expected.seconds)
        ):
            kills += 1
        redo(directory, name, expected)
        shutil.rmtree(directory)
    tally(f"kill -9: {name}", tried=kills, survived=kills)
