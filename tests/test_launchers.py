"""Sweeps: what is trained together, and that it makes no difference to any run."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest

from tests import tiny
from tests.test_cli import SLOW, TINY, start, wait_for
from vibx.config import Dropout, Execution, parse_config
from vibx.training.checkpoint import Checkpoints
from vibx.training.launch import groups
from vibx.training.state import split
from vibx.training.step import runs_that_fit

EXECUTION = Execution(eval_every=1, checkpoint_every=1, root="runs", force=False)
EIGHT_DEVICES = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
SWEEP = [*TINY, "-m", "beta=1e-3,1e-1", "seed=0,1,2", "optimizer.learning_rate=1e-3"]


def grouped(cfgs, *, runs_at_once=100, execution=EXECUTION):
    jobs = [(cfg, execution) for cfg in cfgs]
    return [group for group, _ in groups(jobs, runs_at_once=runs_at_once)]


def records(root):
    found = {file.parent: json.loads(file.read_text()) for file in root.glob("*/metrics.json")}
    return {directory.name: (directory, record) for directory, record in found.items()}


def weights(directory, record):
    program, _ = split(parse_config(record["config"]))
    with Checkpoints(directory / "checkpoints") as checkpoints:
        return jax.device_get(checkpoints.restore(program).parameters)


def test_jobs_that_differ_in_numbers_are_one_group():
    cfgs = [tiny.vib(seed=s, beta=b) for s in (0, 1) for b in (0.0, 1e-3, 1.0)]
    other_rate = tiny.vib(optimizer=tiny.optimizer("author", learning_rate=1e-3))
    assert grouped([*cfgs, other_rate]) == [[*cfgs, other_rate]]


def test_jobs_of_other_programs_or_data_are_groups_of_their_own():
    apart = [
        tiny.vib(),
        tiny.vib(K=5),
        tiny.vib(epochs=5),
        tiny.deterministic(),
        dataclasses.replace(tiny.vib(), data=dataclasses.replace(tiny.vib().data, validation=7)),
    ]
    assert grouped(apart) == [[cfg] for cfg in apart]


def test_groups_are_no_larger_than_asked_and_keep_their_order():
    cfgs = [tiny.deterministic(Dropout("dropout", rate / 10)) for rate in range(5)]
    assert grouped(cfgs, runs_at_once=2) == [cfgs[:2], cfgs[2:4], cfgs[4:]]


def test_on_a_cpu_runs_go_one_after_another():
    program, _ = split(tiny.vib())
    assert runs_that_fit(program, 128) == 1


def test_runs_sharded_over_eight_devices_are_the_runs_one_after_another(vibx, tmp_path):
    """Six runs on eight devices: to rounding, the records and the weights of each run alone."""
    assert vibx("train", *SWEEP, "hydra/launcher=basic").returncode == 0
    (tmp_path / "runs").rename(tmp_path / "alone")
    done = vibx("train", *SWEEP, "hydra.launcher.runs_at_once=6", env=EIGHT_DEVICES)
    assert done.returncode == 0, done.stderr
    alone, together = records(tmp_path / "alone"), records(tmp_path / "runs")
    assert alone.keys() == together.keys()
    assert len(alone) == 6
    for name, run in alone.items():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            weights(*run),
            weights(*together[name]),
        )
        for section in ("train", "test"):
            assert together[name][1][section] == pytest.approx(run[1][section], rel=2e-3)
        assert {f.name for f in run[0].iterdir()} == {f.name for f in together[name][0].iterdir()}


def test_a_run_that_fails_does_not_take_its_neighbours_along(vibx, tmp_path):
    sweep = [*TINY, "-m", "optimizer.learning_rate=1e-4,1e30,2e-4"]
    alone = vibx("train", *TINY, "optimizer.learning_rate=1e-4", "root=alone")
    assert alone.returncode == 0
    done = vibx("train", *sweep, "hydra.launcher.runs_at_once=3")
    assert done.returncode == 1
    assert "the objective is not finite in epoch" in done.stdout
    assert len(done.stderr.splitlines()[-1]) < 200
    finished = records(tmp_path / "runs")
    assert len(finished) == 2
    ((name, (_, record)),) = records(tmp_path / "alone").items()
    assert finished[name][1]["test"] == pytest.approx(record["test"], rel=1e-3)


def test_a_bad_value_in_the_last_job_stops_the_sweep_before_anything_is_written(vibx, tmp_path):
    done = vibx("train", *TINY, "-m", "beta=1e-3,1e-2,-1")
    assert done.returncode == 2
    assert done.stderr.strip() == "vibx train: error: beta=-1.0: must be finite and >= 0"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("runs_at_once", [1, 2])
def test_a_killed_sweep_goes_on_where_it_was(cache, vibx, tmp_path, runs_at_once):
    launcher = f"hydra.launcher.runs_at_once={runs_at_once}"
    sweep = ["-m", *SLOW, "data.train_images=8000", "seed=0,1,2,3", launcher]
    assert vibx("train", *sweep, "root=whole").returncode == 0
    process = start(tmp_path, *sweep)
    wait_for(lambda: len(records(tmp_path / "runs")) >= 2, process)
    wait_for(lambda: len(list(tmp_path.glob("runs/*/checkpoints/1"))) >= 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = {name: times(directory) for name, (directory, _) in records(tmp_path / "runs").items()}
    assert 2 <= len(before) < 4
    assert vibx("train", *sweep).returncode == 0
    after = records(tmp_path / "runs")
    assert {name: times(after[name][0]) for name in before} == before
    whole = records(tmp_path / "whole")
    for name, (directory, record) in whole.items():
        assert after[name][1]["test"] == record["test"]
        jax.tree.map(
            np.testing.assert_array_equal, weights(directory, record), weights(*after[name])
        )


def times(directory):
    return {f: f.stat().st_mtime_ns for f in directory.rglob("*") if f.is_file()}


def test_joblib_is_still_a_launcher(vibx, tmp_path):
    done = vibx("train", *TINY, "-m", "seed=0,1", "hydra/launcher=joblib")
    assert done.returncode == 0, done.stderr
    assert len(records(tmp_path / "runs")) == 2
