"""Checkpoints: the last two states, to the bit; a damaged one is told and never used."""

import logging
import shutil

import pytest

from tests import tiny
from vibx import store
from vibx.errors import DamagedError
from vibx.files import read_sealed, write_sealed
from vibx.training.checkpoint import Checkpoints, Saved

HISTORY = [{"epoch": 1, "rate_bits": None, "objective_bits": 0.1 + 0.2}]


@pytest.mark.parametrize(
    "cfg",
    [
        tiny.vib(bottleneck="full_covariance", decoder=tiny.mlp(4)),
        tiny.vib(encoder=tiny.cnn(4)),
        tiny.deterministic(optimizer=tiny.optimizer("seed_text")),
    ],
    ids=["full covariance", "cnn", "without average"],
)
def test_state_and_history_come_back_to_the_bit(cfg, tmp_path):
    states = [tiny.state(cfg, seed=seed) for seed in (0, 1, 2)]
    checkpoints = Checkpoints(tmp_path, cfg)
    assert checkpoints.latest() == Saved(0, None, [])
    for epoch, state in enumerate(states, start=1):
        checkpoints.save(Saved(epoch, state, HISTORY))
    assert list(store.checkpoints(tmp_path)) == [3, 2]
    found = Checkpoints(tmp_path, cfg).latest()
    assert (found.epoch, found.history) == (3, HISTORY)
    tiny.assert_same(found.state, states[2])
    checkpoints.keep_latest()
    assert list(store.checkpoints(tmp_path)) == [3]


CFG = tiny.vib()
STATES = {epoch: tiny.state(CFG, seed=epoch) for epoch in (2, 4)}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of the name `run` with checkpoints after epochs 2 and 4."""
    directory = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(directory, CFG)
    for epoch, state in STATES.items():
        checkpoints.save(Saved(epoch, state, HISTORY * epoch))
    return directory


@pytest.fixture
def run(two, tmp_path):
    return shutil.copytree(two, tmp_path / "run")


def files(run, epoch):
    return sorted(p for p in store.checkpoints(run)[epoch].rglob("*") if p.is_file())


def truncate(content):
    return content[:-2]


def flip(content):
    return content[:-1] + bytes([content[-1] ^ 8])


def empty(content):
    return b""


@pytest.mark.parametrize("damage", [truncate, flip, empty, None])
def test_any_damaged_file_of_the_newest_is_told_and_the_one_before_is_used(run, caplog, damage):
    for path in files(run, 4):
        content = path.read_bytes()
        caplog.clear()
        if damage is None:
            path.unlink()
        elif damage(content) == content:
            continue
        else:
            path.write_bytes(damage(content))
        with caplog.at_level(logging.WARNING):
            found = Checkpoints(run, CFG).latest()
        assert (found.epoch, found.history) == (2, HISTORY * 2)
        tiny.assert_same(found.state, STATES[2])
        (message,) = caplog.messages
        assert f": checkpoint {path.relative_to(run / store.CHECKPOINTS)}: " in message
        assert message.endswith("going on from epoch 2")
        path.write_bytes(content)
    assert Checkpoints(run, CFG).latest().epoch == 4


def test_a_checkpoint_of_another_epoch_or_run_is_noticed(run, caplog):
    newest = store.checkpoints(run)[4]
    newest.rename(newest.with_name("9"))
    assert Checkpoints(run, CFG).latest().epoch == 2
    assert "is of epoch=4" in caplog.text
    with pytest.raises(DamagedError, match=r"is of run_id=.* \(and 1 before it\); force=true"):
        Checkpoints(run, tiny.vib(seed=1)).latest()


def test_what_follows_a_damaged_one_keeps_two_that_are_whole(run):
    (files(run, 4)[0]).write_bytes(b"")
    checkpoints = Checkpoints(run, CFG)
    checkpoints.latest()
    checkpoints.save(Saved(6, STATES[4], []))
    assert list(store.checkpoints(run)) == [6, 2]


def test_with_none_left_it_does_not_start_over_by_itself(run):
    for epoch in (2, 4):
        files(run, epoch)[-1].write_bytes(b"")
    with pytest.raises(DamagedError, match="force=true starts over") as error:
        Checkpoints(run, CFG).latest()
    assert "\n" not in str(error.value)
    shutil.rmtree(run / store.CHECKPOINTS)
    (run / store.HISTORY).write_text("epoch\n1\n")
    with pytest.raises(DamagedError, match="gone"):
        Checkpoints(run, CFG).latest()


def test_a_state_of_another_structure_is_one_line(run):
    """As after a change of the code that leaves the run_id what it was."""
    state = store.checkpoints(run)[4]
    other = tiny.vib(K=5)
    manifest = read_sealed(state / store.MANIFEST)
    content = {**manifest, "run_id": other.run_id}
    write_sealed(state / store.MANIFEST, content, files=manifest["files"])
    with pytest.raises(DamagedError, match="no state of this version") as error:
        Checkpoints(run, other).read(4)
    assert "\n" not in str(error.value)


def test_a_checkpoint_from_before_checksums_is_one_line(run):
    (store.checkpoints(run)[4] / store.MANIFEST).unlink()
    with pytest.raises(DamagedError, match=r"manifest.json: missing; train that run again"):
        Checkpoints(run, CFG).read(4)


def test_what_a_killed_save_left_is_replaced(run):
    left = run / store.CHECKPOINTS / ".6.partial" / "default"
    left.mkdir(parents=True)
    (left / "half").touch()
    checkpoints = Checkpoints(run, CFG)
    checkpoints.latest()
    checkpoints.save(Saved(6, STATES[4], []))
    assert list(store.checkpoints(run)) == [6, 4]
    assert not list((run / store.CHECKPOINTS).glob(".*"))
