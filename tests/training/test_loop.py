"""The epochs of a group: runs that start at different epochs end as if they had been alone."""

import jax
import pytest

from tests import tiny
from vibx.training.checkpoint import Saved
from vibx.training.loop import train


def test_runs_of_a_group_go_on_from_where_each_was():
    cfgs = [tiny.vib(seed=seed, beta=beta, epochs=4) for seed, beta in ((0, 0.1), (1, 0.01))]
    uninterrupted = [tiny.train(cfg, epochs=4) for cfg in cfgs]
    new, old = Saved(0, None, []), Saved(3, tiny.train(cfgs[1], epochs=3)[0], [])
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


def test_a_run_alone_goes_on_from_its_state_to_the_same_bits():
    cfg = tiny.vib()
    start = Saved(2, tiny.train(cfg, epochs=2)[0], [])
    *_, (last,) = train([cfg], tiny.IMAGES, [start], axis=1)
    tiny.assert_same(jax.device_get(last.state), tiny.train(cfg, epochs=4)[0])
