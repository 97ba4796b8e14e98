"""Sweeps: what is trained together, and that it makes no difference to any run."""

import dataclasses
import os
import signal
from types import SimpleNamespace

import jax
import pytest

from tests import tiny
from tests.processes import TINY, final_state, records
from vibx.config import Execution
from vibx.training.launch import groups, stop_requests
from vibx.training.step import compiled_epoch, runs_that_fit

EXECUTION = Execution(eval_every=1, checkpoint_every=1, root="runs", force=False)
FLAGS = os.environ.get("XLA_FLAGS", "")
FOUR_DEVICES = {**os.environ, "XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count=4"}


def grouped(cfgs, *, runs_at_once=100, execution=EXECUTION):
    jobs = [(cfg, execution) for cfg in cfgs]
    return [group for group, _ in groups(jobs, runs_at_once=runs_at_once)]


def test_jobs_that_differ_in_numbers_are_one_group():
    cfgs = [tiny.vib(seed=s, beta=b) for s in (0, 1) for b in (0.0, 1e-3, 1.0)]
    other_rate = tiny.vib(optimizer=tiny.optimizer("author", learning_rate=1e-3))
    assert grouped([*cfgs, other_rate]) == [[*cfgs, other_rate]]


def test_jobs_of_other_programs_or_data_are_groups_of_their_own():
    data = tiny.vib().data
    apart = [
        tiny.vib(),
        tiny.vib(K=5),
        tiny.vib(epochs=5),
        tiny.deterministic(),
        tiny.vib(data=dataclasses.replace(data, validation=7)),
        tiny.vib(data=dataclasses.replace(data, name="kmnist")),
    ]
    assert grouped(apart) == [[cfg] for cfg in apart]


def test_groups_are_no_larger_than_asked_and_keep_their_order():
    cfgs = [tiny.deterministic(tiny.dropout(rate / 10)) for rate in range(5)]
    assert grouped(cfgs, runs_at_once=2) == [cfgs[:2], cfgs[2:4], cfgs[4:]]


def test_on_a_cpu_runs_go_one_after_another():
    assert runs_that_fit(tiny.vib()) == 1


def test_runs_sharded_over_devices_are_the_runs_one_after_another(vibx, tmp_path):
    """Three runs on four devices: to rounding, the records and the weights of each run alone."""
    sweep = [*TINY, "-m", "beta=1e-3,1e-1,1", "optimizer.learning_rate=1e-3"]
    assert vibx("train", *sweep, "root=alone", "hydra/launcher=basic").returncode == 0
    done = vibx("train", *sweep, "hydra.launcher.runs_at_once=3", env=FOUR_DEVICES)
    assert done.returncode == 0, done.stderr
    alone, together = records(tmp_path / "alone"), records(tmp_path / "runs")
    assert alone.keys() == together.keys()
    assert len(alone) == 3
    for name, record in alone.items():
        directories = [tmp_path / root / name for root in ("alone", "runs")]
        weights = [final_state(directory).parameters for directory in directories]
        tiny.assert_close(*weights, rtol=1e-3, atol=1e-5)
        for section in ("train", "test"):
            assert together[name][section] == pytest.approx(record[section], rel=2e-3)
        files = [{file.name for file in directory.iterdir()} for directory in directories]
        assert files[0] == files[1]


def test_a_run_that_fails_does_not_take_its_neighbours_along(vibx, tmp_path):
    """Neither one after another nor together; the sweep ends with a table, and runs lists it."""
    sweep = [*TINY, "optimizer.learning_rate=1e-4,1e30,2e-4", "seed=0", "-m"]
    for runs_at_once, root in ((1, "alone"), (3, "together")):
        launcher = f"hydra.launcher.runs_at_once={runs_at_once}"
        done = vibx("train", *sweep, f"root={root}", launcher)
        assert done.returncode == 1
        assert done.stdout.count("vib-K4-beta0.001-seed0-") == 3
        assert "the objective is not finite in epoch" in done.stdout
        error = done.stderr.splitlines()[-1]
        assert error.startswith("vibx train: error: ")
        assert len(error) < 200
    alone, together = records(tmp_path / "alone"), records(tmp_path / "together")
    assert alone.keys() == together.keys()
    assert len(alone) == 2
    for name, record in alone.items():
        assert together[name]["test"] == pytest.approx(record["test"], rel=1e-3)
    assert "2 finished, 1 unfinished" in vibx("runs", "root=alone").stdout


def test_the_second_signal_goes_to_the_handler_before():
    got = []
    before = signal.signal(signal.SIGINT, lambda number, _: got.append(number))
    try:
        with stop_requests() as requested:
            assert requested() == 0
            signal.raise_signal(signal.SIGINT)
            assert (requested(), got) == (signal.SIGINT, [])
            signal.raise_signal(signal.SIGINT)
            assert got == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
        assert len(got) == 2
    finally:
        signal.signal(signal.SIGINT, before)


def test_on_accelerators_as_many_runs_train_at_once_as_the_smallest_holds(monkeypatch):
    need = compiled_epoch(tiny.vib()).memory_analysis()  # compiled before jax is told of others
    size = need.temp_size_in_bytes + need.output_size_in_bytes
    devices = [SimpleNamespace(memory_stats=lambda n=n: {"bytes_limit": n * size}) for n in (10, 6)]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert runs_that_fit(tiny.vib()) == 2 * 4  # 0.8 of 6
