"""README's examples of change, carried out in a copy of the code, and its map of the paper."""

import importlib
import inspect
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.processes import TINY

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CHANGES = {
    re.search(r"\*\*(.+?)\*\*", section)[1]: section
    for section in re.split(r"\n(?=\*\*)", README.partition("## Change one thing")[2])[1:]
}
MAP = re.findall(
    r"^\| ([^|]+) \| `([\w.]+)` \|$", README.partition("## From the paper to the code")[2], re.M
)

PATHS = set(re.findall(r"`((?:vibx|conf|scripts|tests|outputs)/[\w./-]+)`", README))
CREATED = set(re.findall(r"In\s+`(\S+)`:", README)) | {"outputs/runs/"}


def carry_out(change, copy):
    """Write what a section of README says into a copy of the code; returns its command."""
    section = CHANGES[change]
    named = re.findall(r"In\s+`(\S+)`:\n\n```\w+\n(.*?)```", section, re.DOTALL)
    for path, content in named:
        with (copy / path).open("a") as file:
            file.write(f"\n\n{content}")
    for script in re.findall(r"\n\n```python\n(.*?)```", section, re.DOTALL):
        if script not in [content for _, content in named]:
            subprocess.run([sys.executable, "-c", script], cwd=copy, check=True)
    (command,) = re.findall(r"Then\n\n    (vibx .*)\n", section)
    return shlex.split(command)


@pytest.fixture
def copy(tmp_path):
    """A copy of the code in the directory where commands run."""
    for directory in ("vibx", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / directory, tmp_path / directory)
    return tmp_path


@pytest.fixture
def records(copy, vibx_program):
    """Carry a change out, run its command in miniature, and return the records."""

    def run(change, *more):
        _, *command = carry_out(change, copy)
        given = {arg.partition("=")[0] for arg in command}
        tiny = [arg for arg in TINY if arg.partition("=")[0] not in given]
        done = vibx_program(*command, *tiny, *more, env={**os.environ, "PYTHONPATH": str(copy)})
        assert done.returncode == 0, done.stderr
        assert "paper" not in done.stdout
        found = [json.loads(path.read_text()) for path in copy.glob("runs/*/metrics.json")]
        return sorted(found, key=lambda record: record["run_id"]), done.stdout

    return run


def test_an_objective_with_a_number_of_its_own(records, copy):
    (linear, squared), _ = records("An objective with a number of its own")
    assert linear["run_id"].startswith("power_rate-K4-beta0.001-1-seed0-")
    assert squared["config"]["objective"]["power"] == 2
    for record, power in ((linear, 1), (squared, 2)):
        (last,) = pd.read_csv(copy / "runs" / record["run_id"] / "history.csv").tail(1).itertuples()
        rate = last.rate_bits * math.log(2)
        weighed = (last.objective_bits - last.distortion_bits) * math.log(2) / 1e-3
        # The mean of a power is not below the power of the mean, and far below 1.5 times here.
        assert 1 - 1e-4 < weighed / rate**power < 1.5


def test_a_marginal_with_learned_parameters(records):
    (record,), _ = records("A marginal with learned parameters")
    assert record["config"]["marginal"] == {"name": "mixture", "components": 10}
    assert record["test"]["rate_bits"] > 0


def test_an_encoder(records):
    (record,), _ = records("An encoder")
    assert record["config"]["encoder"]["name"] == "residual"


def test_your_own_data(records):
    (record,), _ = records("Your own data")
    assert len(record["config"]["data"]["sha256"]) == 64
    assert record["test"]["n"] == 200


def test_a_measure(records, copy, vibx_program):
    """It is in the record, its history, and the tables of `vibx train` and `vibx runs`."""
    (record,), shown = records("A measure", "eval_every=1")
    measured = record["test"]["calibration_error"]
    assert 0 < measured < 1
    history = pd.read_csv(copy / "runs" / record["run_id"] / "history.csv")
    assert history["test_calibration_error"].iloc[-1] == measured
    listed = vibx_program("runs", "root=runs", env={**os.environ, "PYTHONPATH": str(copy)}).stdout
    for table in (shown, listed):
        assert "calibration error" in table
        assert f"{measured:.2%}" in table


def test_files_that_it_names_are_there():
    assert len(PATHS) > 10
    assert {path for path in PATHS - CREATED if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize(("place", "name"), MAP)
def test_the_map_from_the_paper_to_the_code(place, name):
    """Each name is there, and its docstring cites the place in the paper."""
    cited = re.match(r"(equation|section|appendix|Figure|Table) [\w.]*\w", place)[0]
    module, *attributes = split_module(name)
    found = module
    for attribute in attributes:
        found = getattr(found, attribute)
    assert re.search(rf"{cited}\b(?!\.\d)", inspect.getdoc(found), re.IGNORECASE)


def split_module(name):
    """The longest part of a dotted name that is a module, and the attributes that follow."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            return [importlib.import_module(".".join(parts[:end])), *parts[end:]]
        except ModuleNotFoundError:
            continue
    raise AssertionError(name)


def test_the_map_is_read():
    assert len(MAP) >= 16
