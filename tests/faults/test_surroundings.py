"""Locales, homes, terminals, and directories with odd names."""

import os
import subprocess

import pytest

from tests.faults.scale import cases
from tests.faults.stores import SHORT, assert_told
from tests.processes import VIBX, records

ODDITIES = {
    "LANG=C": {"LANG": "C", "LC_ALL": "C"},
    "no HOME": {"HOME": None, "XDG_CACHE_HOME": None},
    "40 columns": {"COLUMNS": "40", "TERM": "xterm"},
    "NO_COLOR": {"NO_COLOR": "1", "TERM": "xterm"},
    "another time zone": {"TZ": "Pacific/Kiritimati"},
}
TOGETHER = {name: value for oddity in ODDITIES.values() for name, value in oddity.items()}


@pytest.mark.parametrize("oddity", cases([*ODDITIES, "all of them"], short=["all of them"]))
def test_a_run_is_the_same_in_odd_surroundings(oddity, cache, tmp_path, tally):
    directory = tmp_path / "a place with späces"
    directory.mkdir()
    changes = ODDITIES.get(oddity, TOGETHER)
    env = {k: v for k, v in (os.environ | changes).items() if v is not None}
    for command in (["train", *SHORT], ["runs", "root=runs"]):
        done = subprocess.run(
            [VIBX, *command], cwd=directory, env=env, capture_output=True, text=True, timeout=300
        )
        assert_told(done, codes=(0,))
    (name,) = records(directory / "runs")
    assert name in done.stdout.replace("\n", "")
    tally(f"surroundings: {oddity}", tried=2)


def test_where_orbax_would_not_find_its_checkpoints_nothing_is_trained(vibx, tmp_path):
    for root in ("runs[old]", "back\\slash"):
        done = vibx("train", *SHORT, f"root={root}")
        assert done.returncode == 2
        assert f"{root}: must be without" in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_names_are_shown_as_they_are(vibx, tmp_path):
    """Not read as markup; what a store is called is not what a run is trained in."""
    assert vibx("train", *SHORT, "root=runs").returncode == 0
    (tmp_path / "runs").rename(tmp_path / "q[red]")
    done = vibx("runs", "root=q[red]")
    assert done.returncode == 0, done.stderr
    assert "1 finished, 0 unfinished in q[red]" in done.stdout
