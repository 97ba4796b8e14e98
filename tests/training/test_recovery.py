"""Runs that were stopped, damaged or are made anew: to the same bits, or one line; nothing lost."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from tests import tiny
from tests.data.files import flip_a_bit
from tests.processes import final_state, records
from vibx import store
from vibx.commands.runs import wrong_with
from vibx.config import Execution
from vibx.data.schemas import Arrays
from vibx.errors import DamagedError, LockedError
from vibx.files import lock
from vibx.training.launch import launch
from vibx.training.run import train_runs


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    """A run of four epochs on 8 x 8 images of noise."""
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    draw = np.random.default_rng(0)
    arrays = {}
    for name, n in (("train", 96), ("test", 96)):
        arrays[f"{name}_images"] = draw.integers(0, 256, (n, 8, 8), np.uint8)
        arrays[f"{name}_labels"] = np.arange(n) % 4
    np.savez(path, **arrays)
    return tiny.vib(data=Arrays(name="arrays", path=str(path)), batch_size=32)


def train(root, *cfgs, force=False):
    execution = Execution(eval_every=1, checkpoint_every=1, root=str(root), force=force)
    return launch([(cfg, execution) for cfg in cfgs])


def stop_after(epoch):
    def on_epoch(run_id, row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return on_epoch


def train_until(directory, cfg, epoch):
    """Stopped in the middle of things, as by a second Ctrl-C, after an epoch that was saved."""
    directory.mkdir(parents=True, exist_ok=True)
    options = {"axis": 1, "eval_every": 1, "checkpoint_every": 1, "requested": lambda: 0}
    with pytest.raises(KeyboardInterrupt):
        train_runs({cfg: directory}, on_epoch=stop_after(epoch), **options)


@pytest.fixture(scope="module")
def whole(cfg, tmp_path_factory):
    """The store of the run, never stopped."""
    root = tmp_path_factory.mktemp("whole")
    train(root, cfg)
    return root


def largest_file(checkpoint):
    return max(checkpoint.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)


def assert_same_run(found, expected):
    for section in ("train", "test", "config"):
        assert (
            records(found.parent)[found.name][section]
            == records(expected.parent)[found.name][section]
        )
    tiny.assert_same(final_state(found), final_state(expected))
    histories = [
        pd.read_csv(run / store.HISTORY).drop(columns="seconds") for run in (found, expected)
    ]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    (run,) = store.read_runs(found.parent).runs
    assert list(wrong_with(run, weights=True)) == []
    assert list(store.checkpoints(found)) == [4]


def test_a_damaged_newest_checkpoint_is_told_and_the_run_ends_in_the_same_bits(
    cfg, whole, tmp_path
):
    directory = tmp_path / cfg.run_id
    train_until(directory, cfg, 3)
    assert list(store.checkpoints(directory)) == [3, 2]
    flip_a_bit(largest_file(store.checkpoints(directory)[3]))
    train(tmp_path, cfg)
    log = (directory / store.LOG).read_text().splitlines()
    (told,) = [line for line in log if " WARNING " in line]
    assert f" {cfg.run_id}: checkpoint 3/" in told
    assert told.endswith("going on from epoch 2")
    assert_same_run(directory, whole / cfg.run_id)


def test_a_resumed_run_names_the_processes_that_trained_it_before(cfg, whole, tmp_path):
    directory = tmp_path / cfg.run_id
    for epoch in (1, 2):
        train_until(directory, cfg, epoch)
    train(tmp_path, cfg)
    provenance = store.read_record(directory)["provenance"]
    first, second = provenance["resumed_after"]
    assert first["start"] <= second["start"] <= provenance["start"]
    for key in ("vibx", "git_commit", "device"):
        assert first[key] == second[key] == provenance[key]
    assert "resumed_after" not in store.read_record(whole / cfg.run_id)["provenance"]


@pytest.mark.parametrize("history", [None, "", "epoch,step\n9,9\n"])
def test_the_history_of_an_unfinished_run_is_that_of_its_checkpoint(cfg, whole, tmp_path, history):
    directory = tmp_path / cfg.run_id
    train_until(directory, cfg, 2)
    path = directory / store.HISTORY
    path.unlink() if history is None else path.write_text(history)
    assert list(store.unfinished(tmp_path).values()) == ["unfinished, saved after epoch 2"]
    train(tmp_path, cfg)
    assert_same_run(directory, whole / cfg.run_id)


def test_with_no_whole_checkpoint_only_force_starts_over(cfg, whole, tmp_path):
    directory = tmp_path / cfg.run_id
    train_until(directory, cfg, 3)
    for checkpoint in store.checkpoints(directory).values():
        largest_file(checkpoint).write_bytes(b"")
    before = {path: path.stat().st_mtime_ns for path in (directory / "checkpoints").rglob("*")}
    (outcome,) = train(tmp_path, cfg).values()
    assert isinstance(outcome, DamagedError)
    assert str(outcome).endswith("(and 1 before it); force=true starts over")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    train(tmp_path, cfg, force=True)
    assert_same_run(directory, whole / cfg.run_id)


def test_force_keeps_the_old_run_until_the_new_one_is_whole(cfg, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    directory = tmp_path / cfg.run_id
    (directory / store.ATTACKS).mkdir()
    before = (directory / store.METRICS).read_bytes()
    train_until(directory / store.AGAIN, cfg, 3)  # where force=true trains
    assert (directory / store.METRICS).read_bytes() == before
    (run,) = store.read_runs(tmp_path).runs
    assert list(wrong_with(run, weights=True)) == []
    train(tmp_path, cfg, force=True)
    assert (directory / store.METRICS).read_bytes() != before
    assert not (directory / store.ATTACKS).exists()  # they were on other weights
    assert_same_run(directory, whole / cfg.run_id)


def test_what_an_earlier_force_left_damaged_is_of_no_use(cfg, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    again = tmp_path / cfg.run_id / store.AGAIN
    train_until(again, cfg, 2)
    for checkpoint in store.checkpoints(again).values():
        largest_file(checkpoint).write_bytes(b"")
    (outcome,) = train(tmp_path, cfg, force=True).values()
    assert not isinstance(outcome, Exception), outcome


def test_a_run_that_is_read_is_not_replaced(cfg, whole):
    directory = whole / cfg.run_id
    before = (directory / store.METRICS).read_bytes()
    with lock(directory, work="attacked", shared=True):
        (outcome,) = train(whole, cfg, force=True).values()
    assert isinstance(outcome, LockedError)
    assert str(outcome) == f"{cfg.run_id} is being attacked by another process"
    assert (directory / store.METRICS).read_bytes() == before


def test_a_damaged_record_does_not_stop_its_sweep(cfg, whole, tmp_path):
    cfgs = [dataclasses.replace(cfg, seed=seed) for seed in (0, 1)]
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / cfgs[0].run_id / store.METRICS).write_text("{}")
    damaged, trained = train(tmp_path, *cfgs).values()
    assert isinstance(damaged, DamagedError)
    assert trained["run_id"] == cfgs[1].run_id


def test_weights_of_another_run_are_named(cfg, whole, tmp_path):
    cfgs = [dataclasses.replace(cfg, seed=seed) for seed in (0, 1)]
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    train(tmp_path, cfgs[1])
    paths = [tmp_path / each.run_id / store.CHECKPOINTS for each in cfgs]
    paths[0].rename(tmp_path / "aside")
    paths[1].rename(paths[0])
    (tmp_path / "aside").rename(paths[1])
    for run in store.read_runs(tmp_path).runs:
        (line,) = wrong_with(run, weights=True)
        assert f"{run.directory / store.CHECKPOINTS}/4: is of run_id=" in line
