"""kill -9 at random moments, and the same command again: what it would have left alone."""

import functools
import random
import shutil
import time

import pytest

from tests import processes
from tests.faults.scale import cases, times
from tests.faults.stores import WORK, content, redo
from vibx import store


def saved(directory):
    """Whether a run has a checkpoint and no record yet."""
    checkpoints = directory.glob("runs/*/checkpoints/[0-9]")
    return any(not store.is_finished(path.parents[1]) for path in checkpoints)


def partly_finished(directory):
    """Whether some of a sweep's runs have records, and another one a checkpoint."""
    return bool(processes.records(directory / "runs")) and saved(directory)


UNDER_WAY = {
    "training": saved,
    "sweep": partly_finished,
    "sweep together": partly_finished,
    "attack": lambda directory: any(directory.glob("runs/*/attacks/*/parts/*.npz")),
    "drawing": lambda directory: any(directory.glob("drawn/*.csv")),
}


def killed(directory, command, *, when):
    """Start a command and kill it once something is so; whether it was still at work."""
    process = processes.fork(directory, *command)
    while process.is_alive() and not when():
        time.sleep(0.005)
    at_work = process.is_alive()
    process.kill()
    process.join()
    return at_work


@pytest.mark.parametrize("name", cases(WORK, short=["sweep together", "attack"]))
def test_after_kills_the_same_command_leaves_what_it_would_have(name, undisturbed, tmp_path, tally):
    """The first kill is in the middle of the work, the others are at any moment."""
    expected = undisturbed(name)
    moments = random.Random(name)

    def at_random():
        moment = time.monotonic() + moments.uniform(0, expected.seconds)
        return lambda: time.monotonic() > moment

    kills, wanted = 0, times(50, short=1)
    while kills < wanted:
        directory = tmp_path / f"killed-{kills}"
        shutil.copytree(expected.prepared, directory)
        if kills == 0:
            under_way = functools.partial(UNDER_WAY[name], directory)
            assert killed(directory, WORK[name], when=under_way)
            assert content(directory) != expected.content
            kills = 1
        while kills < wanted and killed(directory, WORK[name], when=at_random()):
            kills += 1
        redo(directory, name, expected)
        shutil.rmtree(directory)
    tally(f"kill -9: {name}", tried=kills)
