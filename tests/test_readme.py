"""What README.md tells to change, changed in a copy of the code: both come out as runs."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.test_cli import TINY

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON, YAML = (
    re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL) for kind in ("python", "yaml")
)


@pytest.fixture
def copy(tmp_path):
    """A copy of the code, and what changes one of its files."""
    for directory in ("vibx", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / directory, tmp_path / directory)

    def change(file, old, new):
        text = (tmp_path / file).read_text()
        assert text.count(old) == 1
        (tmp_path / file).write_text(text.replace(old, new))

    return tmp_path, change


@pytest.fixture
def train(copy, vibx):
    """Run `vibx train` of the copy; returns what it shows."""

    def run(*args):
        done = vibx("train", *TINY, *args, env={**os.environ, "PYTHONPATH": str(copy[0])})
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_new_objective(copy, train):
    directory, change = copy
    objectives = "OBJECTIVES: dict[str, Callable[..., Terms]] = {\n"
    entry = '    "squared_rate": squared_rate,\n'
    change("vibx/objectives.py", objectives, f"{PYTHON[0]}\n\n{objectives}{entry}")
    schema = '        "vib": VIBObjective,\n'
    change("vibx/config.py", schema, schema + '        "squared_rate": VIBObjective,\n')
    (directory / "conf" / "objective" / "squared_rate.yaml").write_text(YAML[0])
    shown = train("objective=squared_rate", "K=256")
    assert "squared_rate-K256" in shown
    assert "paper" not in shown


def test_a_new_encoder(copy, train):
    directory, change = copy
    change(
        "vibx/model.py", "class Encoder(nnx.Module):", f"{PYTHON[1]}\n\nclass Encoder(nnx.Module):"
    )
    change(
        "vibx/model.py",
        "self.hidden = HiddenLayers(PIXELS, mlp, rngs=rngs)",
        'layers = {"mlp": HiddenLayers, "residual": ResidualLayers}[mlp.name]\n'
        "        self.hidden = layers(PIXELS, mlp, rngs=rngs)",
    )
    change("vibx/config.py", '"encoder": {"mlp": MLP}', '"encoder": {"mlp": MLP, "residual": MLP}')
    residual = "name: residual\nwidths: [16, 16]\n"
    (directory / "conf" / "encoder" / "residual.yaml").write_text(residual)
    train("encoder=residual", "encoder.widths=[16,16]")
    (stored,) = directory.glob("runs/*/config.yaml")
    assert "name: residual" in stored.read_text()
