"""The command line as a user meets it: help, what is refused and how, a name for each command."""

import sys

import pytest

from tests.processes import TINY
from vibx import cli


@pytest.fixture
def said(monkeypatch, tmp_path, capsys):
    """Run the command line here, in an empty directory; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["vibx", *args])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return exited.value.code, *capsys.readouterr()

    return run


def test_help_and_version_import_nothing_heavy(interpreter):
    shown = interpreter(
        "import sys; from vibx.cli import main; main(['--help']); main(['--version']);"
        "assert not {'jax', 'hydra', 'numpy'} & set(sys.modules)"
    )
    assert all(command in shown for command in cli.COMMANDS)


def test_help_of_a_command_teaches(vibx):
    done = vibx("train", "--help")
    assert done.returncode == 0
    for expected in ("vibx train -m beta=", "objective: confidence_penalty, dropout", "K: 256"):
        assert expected in done.stdout


def test_bad_input_is_one_line_exit_2_and_leaves_nothing(vibx, tmp_path):
    done = vibx("train", *TINY, "beta=-1")
    assert done.returncode == 2
    assert done.stderr == "vibx train: error: beta=-1.0: must be finite and >= 0\n"
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bad",
    [
        ["beta=-1"],
        ["K=0"],
        ["nosuch=1"],
        ["+nosuch=1"],
        ["objective=nosuch"],
        ["batch_size=501"],
        ["beta"],
        ["root=/proc/nowhere"],
        ["-m", "beta=1e-3,1e-2,-1"],
    ],
    ids=" ".join,
)
def test_whatever_is_bad_about_the_input_is_one_line(said, tmp_path, bad):
    """A bad value in the last job of a sweep, too, stops it before anything is written."""
    code, out, err = said("train", *TINY, *bad)
    assert code == 2
    assert err.startswith("vibx train: error: ")
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_unknown_command(said):
    code, _, err = said("trian")
    assert code == 2
    assert err.startswith("vibx: error: no command 'trian': one of train, evaluate, ")
