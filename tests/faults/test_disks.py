"""Disks that fill up, that cannot be written to, and directories that are gone."""

import shutil
import subprocess
import time

import pytest

from tests import processes
from tests.faults.scale import cases, times
from tests.faults.stores import SHORT, WORK, assert_told, redo
from tests.processes import TINY

ROOM = 64 * 2**20  # bytes that are enough
PAGE = 4096


@pytest.fixture
def disk(tmp_path):
    """A file system whose options can be set."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
        )
        return done.returncode == 0

    if shutil.which("mount") is None or not mount(f"size={ROOM}"):
        pytest.skip("mounting a file system takes root")
    yield place, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", str(place)], check=True)


def used(directory):
    """Bytes of the blocks that files take."""
    return sum(512 * path.stat().st_blocks for path in directory.rglob("*"))


@pytest.mark.parametrize("name", cases(WORK, short=[]))
def test_a_full_disk_is_told_and_with_room_the_work_goes_on(
    name, undisturbed, tmp_path, disk, tally
):
    place, remount = disk
    expected = undisturbed(name)
    needed = used(tmp_path / "whole") - used(expected.prepared)
    shares = [n / 12 for n in range(12)]
    for share in shares:
        directory = place / "work"
        shutil.copytree(expected.prepared, directory)
        assert remount(f"size={used(place) + int(share * needed) + PAGE}")
        full = processes.run(directory, *WORK[name])
        assert_told(full, codes=(1,))
        assert remount(f"size={ROOM}")
        redo(directory, name, expected)
        shutil.rmtree(directory)
    tally(f"full disk: {name}", tried=len(shares))


def test_a_checkpoint_without_room_is_one_line_and_no_record(vibx, disk, tally):
    place, remount = disk
    assert remount("size=512k")
    done = vibx("train", *TINY, "root=disk/runs")
    assert done.returncode == 1
    *progress, error = done.stderr.splitlines()
    assert all(line.startswith(("epoch ", "note: root is given twice")) for line in progress)
    assert error.startswith("vibx train: error: cannot write a checkpoint of ")
    assert processes.records(place / "runs") == {}
    assert not list(place.glob("runs/*/*partial*"))
    tally("full disk: a checkpoint", tried=1)


def test_a_store_that_cannot_be_written_to_is_told(cache, finished_run, disk, tally):
    place, remount = disk
    shutil.copytree(finished_run / "runs", place / "runs")
    assert remount("ro")
    commands = times(
        [
            WORK["training"],
            WORK["sweep"],
            WORK["attack"],
            ["evaluate", "mc_samples=2", "root=runs"],
        ],
        short=[WORK["training"]],
    )
    for command in commands:
        assert_told(processes.run(place, *command), codes=(1, 2))
    for command in (["runs", "root=runs"], ["runs", "root=runs", "verify=true"]):
        assert_told(processes.run(place, *command), codes=(0,))
    assert remount("rw")
    tally("read-only store", tried=len(commands))


def test_a_store_that_vanishes_is_told(cache, tmp_path, tally):
    tried = times(5, short=1)
    for epochs in range(1, 1 + tried):
        directory = tmp_path / str(epochs)
        directory.mkdir()
        streams = [directory / "stdout", directory / "stderr"]
        process = processes.fork(directory, "train", *SHORT, "epochs=200", streams=streams)
        while processes.epochs_saved(directory / "runs") < epochs:
            assert process.is_alive()
            time.sleep(0.01)
        (directory / "runs").rename(directory / "elsewhere")
        process.join(120)
        assert_told(processes.completed((), process, streams), codes=(1,))
    tally("store removed while it trains", tried=tried)
