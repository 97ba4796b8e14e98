"""The command line as a user meets it: real processes, real data, tiny models."""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest

from tests.conftest import VIBX
from vibx.config import parse_config
from vibx.training.checkpoint import Checkpoints
from vibx.training.state import split

TINY = [
    "data.train_images=500",
    "data.held_out_images=200",
    "encoder.widths=[16]",
    "K=4",
    "batch_size=50",
    "epochs=2",
    "root=runs",
]
# Half a second an epoch: long enough to be killed in the middle of one.
SLOW = [*TINY, "data.train_images=20000", "batch_size=4", "epochs=5", "checkpoint_every=1"]


def records(directory):
    return {p.parent.name: json.loads(p.read_text()) for p in directory.glob("*/metrics.json")}


def start(cwd, *args):
    return subprocess.Popen(
        [VIBX, "train", *args], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def epochs_saved(root):
    """Epochs behind the newest finished checkpoint in the store."""
    names = [path.name for path in root.glob("*/checkpoints/*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def final_state(directory):
    (run,) = directory.glob("vib-*")
    cfg = parse_config(json.loads((run / "metrics.json").read_text())["config"])
    with Checkpoints(run / "checkpoints") as checkpoints:
        return checkpoints.restore(split(cfg)[0])


def assert_same_bits(state, other):
    import jax

    assert jax.tree.structure(state) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_help_and_version_import_nothing_heavy():
    script = (
        "import sys; from vibx.cli import main; main(['--help']); main(['--version']);"
        "assert not {'jax', 'hydra', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [VIBX.replace("vibx", "python"), "-c", script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_help_of_a_command_teaches(vibx):
    done = vibx("train", "--help")
    assert done.returncode == 0
    for expected in ("vibx train -m beta=", "objective: confidence_penalty, dropout", "K: 256"):
        assert expected in done.stdout


def test_a_run_leaves_its_record_and_is_then_skipped(vibx, tmp_path):
    first = vibx("train", *TINY, "beta=1e-3", "K=2", "bottleneck=full_covariance", "eval_every=1")
    assert first.returncode == 0, first.stderr
    (run,) = (tmp_path / "runs").iterdir()
    record = records(tmp_path / "runs")[run.name]
    assert record["schema"] == 1
    assert record["config"]["objective"]["name"] == "vib"
    assert record["steps"] == 20
    assert record["test"]["n"] == 200
    assert record["train"]["n"] == 500
    assert record["test"]["izx_upper_bits"] == record["test"]["rate_bits"] > 0
    assert record["provenance"]["command"].startswith("vibx train")
    history = pd.read_csv(run / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert history["test_error_mc"].iloc[-1] == record["test"]["error_mc"]
    predictions = np.load(run / "predictions.npz")
    assert (predictions["class_mc"] != predictions["labels"]).mean() == record["test"]["error_mc"]
    embedding = np.load(run / "embedding.npz")
    assert embedding["cholesky"].shape == (200, 2, 2)
    assert embedding["decoder_kernel"].shape == (2, 10)

    written = (run / "metrics.json").stat().st_mtime_ns
    again = vibx("train", *TINY, "beta=0.001", "K=2", "bottleneck=full_covariance")
    assert again.returncode == 0
    assert "is finished" in again.stdout
    assert (run / "metrics.json").stat().st_mtime_ns == written
    forced = vibx("train", *TINY, "beta=0.001", "K=2", "bottleneck=full_covariance", "force=true")
    assert forced.returncode == 0
    assert (run / "metrics.json").stat().st_mtime_ns > written
    repeated = records(tmp_path / "runs")[run.name]
    assert repeated["test"] == record["test"]


def test_a_deterministic_run_on_a_validation_split_has_no_rate_and_no_test(vibx, tmp_path):
    done = vibx("train", *TINY, "objective=dropout", "data.validation=10000")
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "runs").values()
    assert "test" not in record
    assert record["validation"]["rate_bits"] is None
    assert record["config"]["beta"] is None


def test_sweep_goes_on_after_a_failed_run_and_ends_with_a_table(vibx, tmp_path):
    done = vibx("train", *TINY, "optimizer.learning_rate=1e-4,1e30,2e-4", "seed=0", "-m")
    assert done.returncode == 1
    assert done.stdout.count("vib-K4-beta0.001-seed0-") == 3
    assert "the objective is not finite in epoch" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("vibx train: error: ")
    assert len(records(tmp_path / "runs")) == 2
    listed = vibx("runs", "root=runs")
    assert "2 finished, 1 unfinished" in listed.stdout


def test_evaluate_finished_runs_with_other_sample_counts(vibx, tmp_path):
    vibx("train", *TINY, "beta=1e-3,1e-2", "-m")
    done = vibx("evaluate", "root=runs", "runs=beta=1e-2", "mc_samples=3")
    assert done.returncode == 0, done.stderr
    (evaluated,) = (tmp_path / "runs").glob("*/evaluation-mc3.json")
    assert "beta0.01" in evaluated.parent.name
    sections = json.loads(evaluated.read_text())
    record = records(tmp_path / "runs")[evaluated.parent.name]
    assert sections["test"]["mc_samples"] == 3
    assert sections["test"]["error_1"] == pytest.approx(record["test"]["error_1"], abs=0.1)
    assert sections["test"]["rate_bits"] == pytest.approx(record["test"]["rate_bits"], rel=1e-5)
    missed = vibx("evaluate", "root=runs", "runs=beta=7")
    assert missed.returncode == 2
    assert "no finished run in runs matches" in missed.stderr


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
    ],
)
def test_bad_input_is_one_line_exit_2_and_leaves_nothing(vibx, tmp_path, bad):
    done = vibx("train", *TINY, *bad)
    assert done.returncode == 2
    assert done.stderr.startswith("vibx train: error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_unknown_command(vibx):
    done = vibx("trian")
    assert done.returncode == 2
    assert done.stderr.startswith("vibx: error: no command 'trian': one of train, evaluate, ")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system takes root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_line_exit_1_and_no_record(vibx, small_disk):
    done = vibx("train", *TINY, "root=disk/runs")
    assert done.returncode == 1
    *progress, error = done.stderr.splitlines()
    assert all(line.startswith("epoch ") for line in progress)
    assert error.startswith("vibx train: error: cannot write a checkpoint of ")
    assert records(small_disk / "runs") == {}
    assert not list(small_disk.glob("runs/*/*partial*"))


def test_killed_three_times_in_the_middle_of_an_epoch_gives_the_same_bits(cache, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    reference = start(whole, *SLOW)
    for attempt in range(1, 4):
        process = start(killed, *SLOW)
        wait_for(lambda n=attempt: epochs_saved(killed / "runs") >= n, process)
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert records(killed / "runs") == {}
    last = start(killed, *SLOW)
    assert last.wait(timeout=300) == 0
    assert reference.wait(timeout=300) == 0
    assert_same_bits(final_state(killed / "runs"), final_state(whole / "runs"))
    (a,), (b,) = (records(d / "runs").values() for d in (whole, killed))
    assert {k: a[k] for k in ("train", "test", "config")} == {
        k: b[k] for k in ("train", "test", "config")
    }
    histories = [pd.read_csv(next((d / "runs").glob("*/history.csv"))) for d in (whole, killed)]
    pd.testing.assert_frame_equal(*(h.drop(columns="seconds") for h in histories))


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_the_epoch_and_says_how_to_resume(cache, tmp_path, signal_number):
    process = start(tmp_path, *SLOW, "epochs=40", "checkpoint_every=3")
    wait_for(lambda: epochs_saved(tmp_path / "runs"), process)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "the same command resumes it" in errors
    saved = epochs_saved(tmp_path / "runs")
    assert 3 <= saved < 40
    assert f"saved after epoch {saved} of 40" in errors


def test_a_second_process_on_the_same_run_leaves_it_to_the_first(cache, tmp_path):
    first = start(tmp_path, *SLOW)
    wait_for(lambda: list(tmp_path.glob("runs/*/config.yaml")), first)
    second = start(tmp_path, *SLOW)
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    assert "is being trained by another process" in said
    assert first.poll() is None
    first.communicate(timeout=300)
    assert first.returncode == 0
    assert len(records(tmp_path / "runs")) == 1


def test_output_in_a_pipe_is_plain_lines(vibx):
    done = vibx("train", *TINY, "eval_every=1", env={**os.environ, "TERM": "xterm"})
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert "\x1b" not in done.stdout + done.stderr
    assert "rate" in lines[0]
    assert "test error" in lines[0]


def test_data_that_cannot_be_had_is_one_line_and_leaves_no_run(vibx, tmp_path):
    offline = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    elsewhere = {"VIBX_DATA_DIR": str(tmp_path / "cache")}
    done = vibx("train", *TINY, "data=kmnist", env={**os.environ, **offline, **elsewhere})
    assert done.returncode == 2
    (error,) = done.stderr.splitlines()
    assert error.startswith("vibx train: error: kmnist: cannot download from ")
    assert list((tmp_path / "runs").iterdir()) == []
