"""Runs trained together: each is the run alone and does not notice the others."""

import jax
import numpy as np
import pytest

from tests import tiny
from vibx.tracing import traceable
from vibx.training.group import axis_length, padded, replicated, stacked, unstacked
from vibx.training.step import compiled_epoch, compiled_initial_state

# Steps large enough to show in a few of them.
FAST = tiny.optimizer("author", learning_rate=1e-3)


def train_together(cfgs, *, epochs=2):
    """The states after some epochs of runs that differ in seeds and numbers."""
    runs = len(cfgs)
    keys = jax.vmap(jax.random.key)(np.array([cfg.seed for cfg in cfgs]))
    numbers = stacked([traceable(cfg) for cfg in cfgs])
    state = stacked([compiled_initial_state(cfg)(jax.random.key(cfg.seed)) for cfg in cfgs])
    for _ in range(epochs):
        state, _ = compiled_epoch(cfgs[0], runs=runs)(
            numbers, state, replicated(tiny.IMAGES, runs=runs), keys
        )
    state = jax.device_get(state)
    return [unstacked(state, run, runs=runs) for run in range(runs)]


def test_a_run_beside_others_is_the_run_alone():
    """To rounding: batched products of float32 are summed in another order."""
    cfgs = [tiny.vib(optimizer=FAST, seed=s, beta=b) for s, b in ((0, 1e-3), (1, 0.1), (2, 0.0))]
    together = train_together(cfgs)
    for cfg, state in zip(cfgs, together, strict=True):
        alone, _ = tiny.train(cfg)
        assert state.step == alone.step
        tiny.assert_close(state.parameters, alone.parameters, rtol=1e-5, atol=1e-6)
        tiny.assert_close(state.average, alone.average, rtol=1e-5, atol=1e-8)


def test_a_run_does_not_notice_its_neighbours():
    run = tiny.vib(optimizer=FAST, seed=5, beta=0.01)
    states = [
        train_together([run, *(tiny.vib(optimizer=FAST, seed=s, beta=b) for s, b in others)])
        for others in ([(0, 1e-3), (1, 0.1)], [(7, 10.0), (8, 0.0)])
    ]
    tiny.assert_same(states[0][0], states[1][0])
    assert tiny.differ(states[0][1], states[1][1])


@pytest.mark.parametrize("runs", [1, 2, 5])
def test_a_groups_trees_come_back_as_they_went_in(runs):
    trees = [{"a": np.arange(3.0) + run, "b": np.float32(run)} for run in range(runs)]
    length = axis_length(runs)
    together = stacked(padded(trees, length=length))
    for run, tree in enumerate(trees):
        tiny.assert_same(unstacked(together, run, runs=length), tree)


def test_spare_places_repeat_the_last_run():
    assert padded([1, 2, 3], length=5) == [1, 2, 3, 3, 3]
