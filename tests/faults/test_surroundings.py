"""Locales, homes, terminals, and directories with odd names."""

import os
import shlex
import subprocess

import pytest

from tests.faults.scale import only_in_full
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


@pytest.mark.parametrize(
    "oddity",
    [*(pytest.param(name, marks=only_in_full) for name in ODDITIES), "all of them"],
)
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
    tally(f"surroundings: {oddity}", tried=2, survived=2)


def test_a_reader_that_leaves_is_no_error(finished_run, tally):
    for command in ("runs root=runs", "--help", "train --help"):
        shell = f"set -o pipefail; {shlex.quote(VIBX)} {command} | true"
        done = subprocess.run(
            ["bash", "-c", shell], cwd=finished_run, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0
        assert done.stderr == ""
    tally("closed pipe", tried=3, survived=3)
