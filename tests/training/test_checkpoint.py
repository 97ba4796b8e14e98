"""Checkpoints: the latest state, to the bit."""

import pytest

from tests import tiny
from vibx.training.checkpoint import Checkpoints


@pytest.mark.parametrize(
    "cfg",
    [
        tiny.vib(bottleneck="full_covariance", decoder=tiny.mlp(4)),
        tiny.vib(encoder=tiny.cnn(4)),
        tiny.deterministic(optimizer=tiny.optimizer("seed_text")),
    ],
    ids=["full covariance", "cnn", "without average"],
)
def test_a_state_comes_back_to_the_bit(cfg, tmp_path):
    states = [tiny.state(cfg, seed=seed) for seed in (0, 1)]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.epoch is None
        for epoch, state in enumerate(states, start=1):
            checkpoints.save(epoch, state)
    with Checkpoints(tmp_path) as reopened:
        assert reopened.epoch == 2
        reopened.save(2, states[0])  # is there already
        tiny.assert_same(reopened.restore(cfg), states[1])
    assert [path.name for path in tmp_path.iterdir() if path.name.isdigit()] == ["2"]
