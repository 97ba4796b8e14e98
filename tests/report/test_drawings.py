"""Drawings are found where they lie, and nothing else is imported for them."""

import subprocess
import sys
from pathlib import Path

from vibx import config
from vibx.experiments import command_of
from vibx.report import drawings


def test_every_module_is_a_drawing_and_every_experiment_is_drawn():
    modules = {path.stem for path in Path(drawings.__file__).parent.glob("[!_]*.py")}
    found = drawings.find()
    assert len(found) == len(modules) == len({drawing.title for drawing in found})
    files = config.directory("train").parent.glob("*/experiment/*.yaml")
    needed = {name for drawing in found for name in drawing.experiments}
    assert needed == {file.stem for file in files}


def test_runs_are_named_for_all_attacks_and_for_nothing_else():
    for drawing in drawings.find():
        commands = {command_of(name) for name in drawing.experiments}
        assert ("attack" in commands) == bool(drawing.attacked)
        assert {command_of(name) for name in drawing.attacked} <= {"train"}


def test_no_jax_and_no_pyplot():
    script = (
        "from vibx.report import drawings; drawings.find(); import sys; "
        "assert not {'jax', 'matplotlib.pyplot'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
