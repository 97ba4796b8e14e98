"""The epochs of a group: runs that start at different epochs end as if they had been alone."""

import pytest

from tests import tiny
from vibx.training.checkpoint import Checkpoints
from vibx.training.loop import start, train


def test_runs_of_a_group_go_on_from_where_each_was(tmp_path):
    cfgs = [tiny.vib(seed=seed, beta=beta, epochs=4) for seed, beta in ((0, 0.1), (1, 0.01))]
    uninterrupted = [tiny.train(cfg, epochs=4) for cfg in cfgs]
    with Checkpoints(tmp_path / "new") as new, Checkpoints(tmp_path / "old") as old:
        old.save(3, tiny.train(cfgs[1], epochs=3)[0])
        rounds = []
        for epochs in train(cfgs, tiny.IMAGES, [new, old], axis=3):
            rounds.append([(epoch.run, epoch.number) for epoch in epochs])
            for epoch in epochs:
                state, measurements = uninterrupted[epoch.run]
                expected = measurements[epoch.number - 1]
                tiny.assert_close(epoch.measured, expected, rtol=1e-5)
                assert epoch.learning_rate == authors_rate(epoch.number)
                if epoch.number == 4:
                    tiny.assert_close(epoch.state.parameters, state.parameters, atol=1e-6)
    assert rounds == [[(0, 1), (1, 4)], [(0, 2)], [(0, 3)], [(0, 4)]]


def authors_rate(epoch):
    """The author's schedule: 0.97 times less every second epoch."""
    return pytest.approx(1e-4 * 0.97 ** ((epoch - 1) // 2), rel=1e-5)


def test_a_run_alone_starts_at_its_checkpoint(tmp_path):
    cfg = tiny.vib()
    with Checkpoints(tmp_path) as checkpoints:
        fresh = start(cfg, checkpoints)
        assert fresh.step == 0
        trained, _ = tiny.train(cfg, epochs=1)
        checkpoints.save(1, trained)
        tiny.assert_same(start(cfg, checkpoints), trained)
