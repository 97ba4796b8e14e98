"""Every file of a store, damaged: `vibx runs verify=true` names it, and no command stumbles."""

import os
import random
import shutil
from pathlib import Path

import pytest

from tests import processes
from tests.data.files import flip_a_bit
from tests.faults.scale import FULL
from tests.faults.stores import NOT_COMPARED, SHORT, assert_told
from vibx import store

DAMAGES = {
    "emptied": lambda path, moments: path.write_bytes(b""),
    "cut": lambda path, moments: os.truncate(path, path.stat().st_size // 2),
    "a bit flipped": lambda path, moments: flip_a_bit(
        path, at=moments.randrange(path.stat().st_size), bit=moments.randrange(8)
    ),
    "gone": lambda path, moments: path.unlink(),
}
READERS = (["runs"], ["figures", "output=drawn"], ["evaluate", "mc_samples=2"], ["attack", "n=3"])
# Without it there is no work of that name, which is no damage.
MADE_BY = (store.METRICS, "evaluation-mc3.json")


@pytest.fixture(scope="module")
def whole(preparation, tmp_path_factory):
    """A run with all that belongs to one: K = 2, an attack, an evaluation, its checkpoint."""
    directory = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIBX_DATA_DIR", str(preparation[0]))
        for command in (
            ["train", *SHORT, "K=2"],
            ["attack", "attack=fgsm", "root=runs", "n=5"],
            ["evaluate", "root=runs", "mc_samples=3"],
        ):
            done = processes.run(directory, *command)
            assert done.returncode == 0, done.stderr
    return directory


def files(directory):
    return [
        path.relative_to(directory)
        for path in sorted(directory.glob("runs/*/**/*"))
        if path.is_file() and path.name not in NOT_COMPARED and path.stat().st_size
    ]


def checkpoint_or_file(path):
    """What is named: a checkpoint is one thing."""
    inside = path.parts.index(store.CHECKPOINTS) if store.CHECKPOINTS in path.parts else None
    return Path(*path.parts[: inside + 2]) if inside else path


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_no_command_stumbles(damage, cache, whole, tmp_path, tally):
    moments = random.Random(damage)
    tried = files(whole)
    if not FULL:
        tried = moments.sample(tried, 1)
    for path in tried:
        directory = tmp_path / "damaged"
        shutil.copytree(whole, directory)
        DAMAGES[damage](directory / path, moments)
        done = processes.run(directory, "runs", "root=runs", "verify=true")
        if damage == "gone" and path.name in MADE_BY:
            assert_told(done, codes=(0,))
        else:
            assert_told(done, codes=(1,))
            assert str(checkpoint_or_file(path)) in done.stderr.replace("\n", "")
        for command in READERS if FULL else ():
            assert_told(processes.run(directory, *command, "root=runs"), codes=(0, 1, 2))
        shutil.rmtree(directory)
    tally(f"file {damage}", tried=len(tried))
