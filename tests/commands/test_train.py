"""`vibx train` and what works on its runs: real processes, real data, tiny models."""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest

from tests import tiny
from tests.processes import SLOW, TINY, epochs_saved, final_state, records, start, wait_for


def test_a_run_leaves_its_record_and_is_then_skipped(vibx_program, vibx, tmp_path):
    run_of = [*TINY, "beta=1e-3", "K=2", "bottleneck=full_covariance"]
    first = vibx_program("train", *run_of, "eval_every=1", env={**os.environ, "TERM": "xterm"})
    assert first.returncode == 0, first.stderr
    assert_plain_lines(first)
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
    again = vibx("train", *run_of, "beta=0.001")
    assert again.returncode == 0
    assert "is finished" in again.stdout
    assert (run / "metrics.json").stat().st_mtime_ns == written
    forced = vibx("train", *run_of, "force=true")
    assert forced.returncode == 0
    assert (run / "metrics.json").stat().st_mtime_ns > written
    repeated = records(tmp_path / "runs")[run.name]
    assert repeated["test"] == record["test"]


def assert_plain_lines(done):
    """What a run in a pipe says of its two epochs."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert "\x1b" not in done.stdout + done.stderr
    assert "rate" in lines[0]
    assert "test error" in lines[0]


def test_a_deterministic_run_on_a_validation_split_has_no_rate_and_no_test(vibx, tmp_path):
    done = vibx("train", *TINY, "objective=dropout", "data.validation=10000")
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "runs").values()
    assert "test" not in record
    assert record["validation"]["rate_bits"] is None
    assert record["config"]["beta"] is None


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
    assert all(line.startswith(("epoch ", "note: root is given twice")) for line in progress)
    assert error.startswith("vibx train: error: cannot write a checkpoint of ")
    assert records(small_disk / "runs") == {}
    assert not list(small_disk.glob("runs/*/*partial*"))


def test_killed_three_times_in_the_middle_of_an_epoch_gives_the_same_bits(cache, tmp_path):
    reference = start(tmp_path, "train", *SLOW, "root=whole")
    killed = tmp_path / "runs"
    for attempt in range(1, 4):
        process = start(tmp_path, "train", *SLOW)
        wait_for(lambda n=attempt: epochs_saved(killed) >= n, process)
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert records(killed) == {}
    last = start(tmp_path, "train", *SLOW)
    for process in (last, reference):
        process.communicate(timeout=300)
        assert process.returncode == 0
    (a,), (b,) = (root.glob("vib-*") for root in (killed, tmp_path / "whole"))
    assert a.name == b.name
    tiny.assert_same(final_state(a), final_state(b))
    found, expected = (json.loads((run / "metrics.json").read_text()) for run in (a, b))
    for section in ("train", "test", "config"):
        assert found[section] == expected[section]
    histories = [pd.read_csv(run / "history.csv").drop(columns="seconds") for run in (a, b)]
    pd.testing.assert_frame_equal(*histories)


def test_asked_to_stop_a_run_saves_its_epoch_and_says_how_to_resume(cache, tmp_path):
    """And while it works, another process on the same run leaves it to it."""
    long = ["train", *SLOW, "epochs=200", "checkpoint_every=3"]
    saved = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(tmp_path, *long)
        wait_for(lambda before=saved: epochs_saved(tmp_path / "runs") > before, process)
        if number == signal.SIGINT:
            second = start(tmp_path, *long)
            _, said = second.communicate(timeout=120)
            assert second.returncode == 1
            assert "is being trained by another process" in said
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 128 + number, errors
        assert "the same command resumes it" in errors
        before, saved = saved, epochs_saved(tmp_path / "runs")
        assert before < saved < 200
        assert f"saved after epoch {saved} of 200" in errors
    (run,) = (tmp_path / "runs").iterdir()
    assert pd.read_csv(run / "history.csv")["epoch"].tolist() == list(range(1, saved + 1))


def test_data_that_cannot_be_had_is_one_line_and_leaves_no_run(vibx, tmp_path):
    offline = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    elsewhere = {"VIBX_DATA_DIR": str(tmp_path / "cache")}
    done = vibx("train", *TINY, "data=kmnist", env={**os.environ, **offline, **elsewhere})
    assert done.returncode == 2
    (error,) = done.stderr.splitlines()
    assert error.startswith("vibx train: error: kmnist: cannot download from ")
    assert list((tmp_path / "runs").iterdir()) == []
