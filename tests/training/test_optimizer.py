"""Adam, its schedule and the average against the recipe written in numpy, and against optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from vibx.data.device import scale
from vibx.tracing import traceable
from vibx.training.optimizer import direction, learning_rate
from vibx.training.state import evaluated_parameters
from vibx.training.step import compiled_initial_state

STEPS = 20


def by_hand(weights, x, y, *, b1, b2, learning_rate, average_decay=None, weight_decay=0.0):
    """Weights after each step of Adam, and their zero-debiased averages, in float64.

    Adam as Kingma and Ba's algorithm 1, its decay of the weights as Loshchilov and Hutter's 2.
    `learning_rate` is a function of the step, from 0.
    """

    @jax.jit
    @jax.grad
    def gradient(weights):
        log_q = tiny.log_q(weights, tiny.encoder_outputs(weights, x))
        return -log_q[jnp.arange(len(y)), y].mean()

    leaves, tree = jax.tree.flatten(weights)
    m = [np.zeros_like(w) for w in leaves]
    v = [np.zeros_like(w) for w in leaves]
    a = [np.zeros_like(w) for w in leaves]
    for t in range(1, STEPS + 1):
        g = jax.tree.leaves(jax.device_get(gradient(jax.tree.unflatten(tree, leaves))))
        for i in range(len(leaves)):
            m[i] = b1 * m[i] + (1 - b1) * g[i]
            v[i] = b2 * v[i] + (1 - b2) * g[i] ** 2
            direction = m[i] / (1 - b1**t) / (np.sqrt(v[i] / (1 - b2**t)) + 1e-8)
            direction += weight_decay * leaves[i]
            leaves[i] = leaves[i] - learning_rate(t - 1) * direction
            if average_decay is not None:
                a[i] = average_decay * a[i] + (1 - average_decay) * leaves[i]
        evaluated = leaves if average_decay is None else [w / (1 - average_decay**t) for w in a]
        yield jax.tree.unflatten(tree, leaves), jax.tree.unflatten(tree, evaluated)


RECIPES = {
    "author": {
        "b1": 0.5,
        "b2": 0.999,
        "learning_rate": lambda epoch: 1e-4 * 0.97 ** (epoch // 2),
        "average_decay": 0.999,
    },
    "seed_text": {"b1": 0.9, "b2": 0.999, "learning_rate": lambda epoch: 1e-3},
}


@pytest.mark.parametrize(
    ("name", "changes"), [*((name, {}) for name in RECIPES), ("author", {"weight_decay": 10.0})]
)
def test_optimizer_is_its_recipe(name, changes):
    """With one step an epoch, so that the staircase goes down every second step."""
    cfg = tiny.deterministic(
        optimizer=tiny.optimizer(name, **changes), epochs=STEPS, images=128, batch_size=128
    )
    state = jax.device_get(compiled_initial_state(cfg)(jax.random.key(cfg.seed)))
    with jax.enable_x64(True):
        start = jax.tree.map(np.float64, state.parameters)
        x = np.asarray(scale(tiny.IMAGES.pixels), np.float64)
        expected = list(by_hand(start, x, tiny.IMAGES.labels, **RECIPES[name], **changes))
    for weights, evaluated in expected:
        state, _ = tiny.train(cfg, epochs=1, state=state)
        found = jax.device_get(evaluated_parameters(state))
        tiny.assert_close(state.parameters, weights, rtol=1e-6, atol=2e-6)
        tiny.assert_close(found, evaluated, rtol=1e-6, atol=2e-6)


def fractions(cfg, steps):
    """Of the learning rate, at steps of a run."""
    rates = jax.jit(jax.vmap(learning_rate, in_axes=(None, 0)))
    found = rates(traceable(cfg), np.asarray(steps, np.int32))
    return np.asarray(found) / np.float32(cfg.optimizer.learning_rate)


def full_size(optimizer):
    return tiny.vib(optimizer=optimizer, images=60_000, batch_size=100, epochs=200)


def test_staircase_falls_at_the_start_of_every_second_epoch():
    epochs = np.arange(200)
    cfg = full_size(tiny.optimizer("author"))
    for step_of_epoch in (0, 599):
        found = fractions(cfg, 600 * epochs + step_of_epoch)
        np.testing.assert_allclose(found, 0.97 ** np.floor(epochs / 2), rtol=1e-5)


def test_constant_schedule_is_constant():
    assert (fractions(full_size(tiny.optimizer("seed_text")), [0, 1, 119_999]) == 1).all()


def test_cosine_falls_from_one_to_zero_over_the_run():
    cfg = full_size(tiny.optimizer("author", schedule="cosine"))
    steps = np.linspace(0, 120_000 - 1, 50).astype(int)
    found = fractions(cfg, steps)
    np.testing.assert_allclose(found, (1 + np.cos(np.pi * steps / 120_000)) / 2, atol=1e-6)
    assert found[0] == 1
    assert found[-1] < 1e-6


@pytest.mark.parametrize(("b1", "b2"), [(0.5, 0.999), (0.0, 0.9)])
def test_adam_is_optaxs(b1, b2):
    ours = direction(tiny.optimizer("author", b1=b1, b2=b2))
    theirs = optax.scale_by_adam(b1=b1, b2=b2)
    weights = np.zeros(1000, np.float32)
    states = ours.init(weights), theirs.init(weights)
    draw = np.random.default_rng(0)

    @jax.jit
    def both(gradient, states):
        found, state = ours.update(gradient, states[0], weights)
        expected, optaxs = theirs.update(gradient, states[1])
        return found, expected, (state, optaxs)

    for step in range(50):
        gradient = np.float32(10.0 ** (step % 7 - 4) * draw.normal(size=weights.shape))
        found, expected, states = both(gradient, states)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_run_at_learning_rate_zero_and_its_average_stay_where_they_start():
    cfg = tiny.vib()
    start = jax.device_get(compiled_initial_state(cfg)(jax.random.key(0)).parameters)
    state, _ = tiny.train(cfg, learning_rate=0.0)
    tiny.assert_same(state.parameters, start)
    tiny.assert_close(evaluated_parameters(state), start, rtol=5e-5)
