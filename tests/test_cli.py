"""The command line as a user meets it: help, what is refused and how, a name for each command."""

import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from tests.processes import ROOT, SLOW, TINY, VIBX, epochs_saved, records, start, wait_for
from vibx import cli, store
from vibx.report.screen import attack_table, run_summary, run_table

RECORDS = ROOT / "outputs" / "paper" / "fast"
BASELINE = "maximum_likelihood-K256-seed0-b84"  # of 15 epochs


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
        ["-m", "beta=1e-3,-1", "hydra/launcher=basic"],
        ["K=100000", "bottleneck=full_covariance"],
        ["-m", "K=4,30000", "bottleneck=full_covariance"],
        ["mc_samples=2000000000"],
        ["-m", "root=a,b"],
        ["hydra.run.dir=elsewhere"],
        ["hydra.output_subdir=elsewhere"],
    ],
    ids=" ".join,
)
def test_whatever_is_bad_about_the_input_is_one_line(said, tmp_path, bad):
    """A bad value in the last job of a sweep, too, stops it before anything is written."""
    code, out, err = said("train", *TINY, *bad)
    assert code == 2
    (line,) = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert line.startswith("vibx train: error: ")
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_unknown_command(said):
    code, _, err = said("trian")
    assert code == 2
    assert err.startswith("vibx: error: no command 'trian': one of train, evaluate, ")


def caught(pid):
    """The signals that a process handles: Python itself handles SIGINT alone."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)[1], 16)
    return {number for number in signal.Signals if mask >> (number - 1) & 1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("again", [False, True])
def test_a_signal_before_the_first_epoch_is_one_line(cache, tmp_path, number, again):
    """While modules are imported, mostly; and a second one while the first is carried out."""
    for seconds in (0, 0.5, 2):
        process = start(tmp_path, "train", *SLOW, "epochs=2000")
        wait_for(lambda p=process: signal.SIGTERM in caught(p.pid), process)
        time.sleep(seconds)
        process.send_signal(number)
        if again:
            time.sleep(0.05)
            process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode in (128 + number, -number)  # -: Python was about to end
        lines = [line for line in said.splitlines() if not line.startswith(("note: ", "epoch "))]
        assert "Traceback" not in said
        assert len(lines) <= 2, said


@pytest.mark.parametrize("args", [["runs", f"root={RECORDS}"], ["--help"], ["train", "--help"]])
def test_a_reader_that_has_enough_is_no_error(args):
    process = subprocess.Popen([VIBX, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_the_table_of_attacks_tells_what_was_seen_from_what_holds():
    accuracies = {"accuracy_before": 0.9, "accuracy_seen": 0.1, "accuracy_recheck": 0.5}
    attack = {"attack": {"name": "noise"}, "mode": "untargeted"}
    result = {"run_id": "r", "attack": attack, "n": 8, "l2_median": 1.25} | accuracies
    screen = Console(file=io.StringIO(), width=160)
    screen.print(attack_table([result]))
    (row,) = [line for line in screen.file.getvalue().splitlines() if "noise" in line]
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["r", "noise, untargeted", "8", "90.00%", "10.00%", "50.00%", "1.25"]


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_runs_can_be_told_apart_on_every_screen(width):
    """And their numbers can be read: no cell is cut."""
    records = [run.record for run in store.read_runs(RECORDS).runs[:5]]
    screen = Console(file=io.StringIO(), width=width, force_terminal=False)
    screen.print(run_table(records))
    shown = screen.file.getvalue()
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    plain = "".join(shown.split())
    for record in records:
        assert record["run_id"] in plain


def test_joblib_is_a_launcher_and_its_workers_end_with_the_process_that_started_them(
    cache, tmp_path
):
    sweep = [*SLOW, "-m", "epochs=1,2000", "hydra/launcher=joblib"]
    process = start(tmp_path, "train", *sweep)
    wait_for(lambda: records(tmp_path / "runs") and epochs_saved(tmp_path / "runs") > 1, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


def test_a_launcher_whose_worker_is_killed_is_told_as_work_that_was_started(cache, tmp_path):
    process = start(tmp_path, "train", *SLOW, "-m", "epochs=2000", "hydra/launcher=joblib")
    wait_for(lambda: epochs_saved(tmp_path / "runs") > 0, process)
    children = psutil.Process(process.pid).children()
    workers = [child for child in children if "popen_loky" in " ".join(child.cmdline())]
    assert workers
    for worker in workers:
        worker.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "the launcher ended: " in errors.splitlines()[-1]
    assert "the same command goes on" in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer=nope", "optimizer=nope: must be one of author, best, fast, k2/fast, k2/paper"),
        ("optimizer=k2/nope", "optimizer=k2/nope: must be one of author, best, fast, k2/fast"),
        ("optimizer/k2=fast", "optimizer/k2=fast: is written optimizer=k2/fast"),
        ("hydra/launcher=nope", "hydra/launcher=nope: must be one of basic, "),
    ],
)
def test_a_choice_that_is_not_there_is_told_with_those_that_are(said, word, message):
    code, _, errors = said("train", word)
    assert code == 2
    assert message in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "+beta=1"], "beta is there already: it is changed without a plus"),
        (["train", "+objective=dropout"], "objective is there already: it is changed without a"),
        (["train", "optimizer=NULL"], "optimizer=NULL: must be one of author, "),
        (["attack", "effort=smoke_audit"], "effort=smoke_audit: it follows from scale and attack"),
        (["evaluate", "runs=vib-K256,dropout"], "outputs/runs: no such directory"),
    ],
)
def test_a_slip_is_answered_with_what_can_be_done(said, words, message):
    code, _, errors = said(*words)
    assert code == 2
    assert message in errors


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, True),
        ({"encoder": {"name": "mlp", "widths": [64, 64], "activation": "relu"}}, False),
        ({"encoder": {"name": "residual", "blocks": 2}}, False),
        ({"decoder": {"name": "mlp", "widths": [10]}}, False),
        ({"data": {"name": "mnist", "train_images": 2000, "held_out_images": None}}, False),
    ],
)
def test_the_papers_number_stands_beside_its_own_model_alone(changes, shown):
    (run,) = [
        run for run in store.read_runs(RECORDS).runs if run.directory.name.startswith(BASELINE)
    ]
    record = run.record | {"config": run.record["config"] | changes}
    screen = Console(file=io.StringIO(), width=120)
    screen.print(run_summary(record))
    assert ("paper, Table 1" in screen.file.getvalue()) == shown
