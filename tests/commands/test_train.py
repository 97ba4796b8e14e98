"""`vibx train` and what works on its runs: real processes, real data, tiny models."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest

from tests.processes import SLOW, TINY, epochs_saved, records, start, wait_for
from vibx.files import lock


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
    assert record["provenance"]["device"] != "cpu: cpu"  # which says nothing of the machine
    assert record["provenance"]["device"].endswith(f", {os.cpu_count()} cores")
    history = pd.read_csv(run / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    seconds = history["seconds"].sum()
    assert record["images_per_second"] == pytest.approx(20 * 50 / seconds)
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


def test_asked_to_stop_a_run_saves_its_epoch_and_says_how_to_resume(vibx, tmp_path):
    """And while it works, another process on the same run leaves it to it."""
    long = ["train", *SLOW, "epochs=200", "checkpoint_every=3"]
    saved = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(tmp_path, *long)
        wait_for(lambda before=saved: epochs_saved(tmp_path / "runs") > before, process)
        if number == signal.SIGINT:
            second = vibx(*long)
            assert second.returncode == 1
            assert "is being trained by another process" in second.stderr
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


def test_a_sweep_that_is_asked_to_stop_in_an_evaluation_starts_no_other_run(vibx, tmp_path):
    long = ["mc_samples=400", "data.train_images=20000", "batch_size=500", "epochs=1"]
    sweep = ["train", "-m", *TINY, *long, "seed=range(4)"]
    process = start(tmp_path, *sweep)
    wait_for(lambda: epochs_saved(tmp_path / "runs") == 1, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "the same command goes on" in errors
    assert 1 <= len(records(tmp_path / "runs")) <= 2
    assert vibx(*sweep).returncode == 0
    assert len(records(tmp_path / "runs")) == 4


def test_a_run_that_cannot_be_used_keeps_no_other_from_being_evaluated(vibx, tmp_path):
    """One is another process's, the data of one are gone, one is whole; then one is damaged."""
    np.savez(tmp_path / "own.npz", **arrays_of(40))
    own = ["data=arrays", "data.path=own.npz", "batch_size=10", "encoder.widths=[16]", "K=4"]
    assert vibx("train", *own, "epochs=1", "root=runs").returncode == 0
    assert vibx("train", "-m", *TINY, "seed=0,1").returncode == 0
    (tmp_path / "own.npz").unlink()
    (locked,) = [path.name for path in (tmp_path / "runs").glob("*-seed1-*")]
    with lock(tmp_path / "runs" / locked, work="trained"):
        for command in (["evaluate", "mc_samples=2"], ["attack", "attack=noise", "n=6"]):
            done = vibx(*command, "root=runs")
            assert done.returncode == 1
            assert f"{locked} is being trained by another process" in done.stderr
            assert "own.npz: " in done.stderr
            assert "re-evaluated" in done.stdout or "test" in done.stdout
    (tmp_path / "runs" / locked / "metrics.json").write_text("{}")
    done = vibx("runs", "root=runs", "runs=seed=1")
    assert done.returncode == 1
    assert "metrics.json: has no checksum" in done.stderr


def arrays_of(n):
    draw = np.random.default_rng(0)
    return {
        name: draw.integers(0, 256, (n, 8, 8), np.uint8) if "images" in name else np.arange(n) % 4
        for name in ("train_images", "train_labels", "test_images", "test_labels")
    }


def test_data_that_cannot_be_had_is_one_line_and_leaves_no_run(vibx, tmp_path):
    offline = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    elsewhere = {"VIBX_DATA_DIR": str(tmp_path / "cache")}
    done = vibx("train", *TINY, "data=kmnist", env={**os.environ, **offline, **elsewhere})
    assert done.returncode == 2
    (error,) = done.stderr.splitlines()
    assert error.startswith("vibx train: error: kmnist: cannot download from ")
    assert list((tmp_path / "runs").iterdir()) == []
