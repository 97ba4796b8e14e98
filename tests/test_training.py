"""Training: one run among others, the optimizer by hand, resuming, randomness, compilation."""

import functools
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from vibx.config import ConfidencePenalty, Dropout, LabelSmoothing
from vibx.data import scale
from vibx.training.optimizer import scale_by_adam
from vibx.training.state import evaluated_parameters, initial_state, split
from vibx.training.step import compiled_epoch, compiled_initial_state, train_epoch

IMAGES = tiny.images(128)


def train(cfg, *, images=IMAGES, epochs=2, state=None, learning_rate=None):
    """State and measurements after some epochs of one run, as numpy arrays."""
    program, numbers = split(cfg)
    if learning_rate is not None:
        numbers = numbers._replace(learning_rate=jnp.float32(learning_rate))
    key = jax.random.key(cfg.seed)
    state = jax.device_put(state) if state else compiled_initial_state(program)(key)
    measurements = []
    run_epoch = compiled_epoch(program, len(images.labels))
    for _ in range(epochs):
        state, measured = run_epoch(state, images, numbers, key)
        measurements.append(jax.device_get(measured))
    return jax.device_get(state), measurements


def train_together(cfgs, *, epochs=2):
    """The states after some epochs of runs that differ in seeds and numbers, under vmap."""
    (program,) = {split(cfg)[0] for cfg in cfgs}
    numbers = jax.tree.map(lambda *n: jnp.stack(n), *(split(cfg)[1] for cfg in cfgs))
    keys = jnp.stack([jax.random.key(cfg.seed) for cfg in cfgs])
    states = jax.jit(jax.vmap(partial(initial_state, program)))(keys)
    for _ in range(epochs):
        states, _ = vectorised_epoch(program)(states, IMAGES, numbers, keys)
    states = jax.device_get(states)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], states) for i in range(len(cfgs))]


@functools.cache
def vectorised_epoch(program):
    return jax.jit(jax.vmap(partial(train_epoch, program), in_axes=(0, None, 0, 0)))


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def assert_close(tree, other, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), tree, other)


def differ(tree, other):
    return any(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), tree, other)))


def fast(**changes):
    """The author's optimizer with steps large enough to show in a few of them."""
    return tiny.optimizer("author", learning_rate=1e-3, **changes)


# Many runs at once


def test_a_run_beside_others_is_the_run_alone():
    """To rounding: batched products of float32 are summed in another order."""
    cfgs = [tiny.vib(optimizer=fast(), seed=s, beta=b) for s, b in ((0, 1e-3), (1, 0.1), (2, 0.0))]
    together = train_together(cfgs)
    for cfg, state in zip(cfgs, together, strict=True):
        alone, _ = train(cfg)
        assert state.step == alone.step
        assert_close(state.parameters, alone.parameters, rtol=1e-5, atol=1e-6)
        assert_close(state.average, alone.average, rtol=1e-5, atol=1e-8)


def test_a_run_does_not_notice_its_neighbours():
    run = tiny.vib(optimizer=fast(), seed=5, beta=0.01)
    states = [
        train_together([run, *(tiny.vib(optimizer=fast(), seed=s, beta=b) for s, b in others)])
        for others in ([(0, 1e-3), (1, 0.1)], [(7, 10.0), (8, 0.0)])
    ]
    assert_same(states[0][0], states[1][0])
    assert differ(states[0][1], states[1][1])


# Adam, its schedule and the average, against the recipe written in numpy

STEPS = 20


def by_hand(weights, x, y, *, b1, b2, learning_rate, average_decay=None):
    """Weights after each step of Adam, and their zero-debiased averages, in float64.

    Adam as Kingma and Ba's algorithm 1. `learning_rate` is a function of the step, from 0.
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


@pytest.mark.parametrize("name", RECIPES)
def test_optimizer_is_its_recipe(name):
    """With one step an epoch, so that the staircase goes down every second step."""
    cfg = tiny.deterministic(
        optimizer=tiny.optimizer(name), epochs=STEPS, images=128, batch_size=128
    )
    program, _ = split(cfg)
    state = jax.device_get(compiled_initial_state(program)(jax.random.key(cfg.seed)))
    with jax.enable_x64(True):
        start = jax.tree.map(np.float64, state.parameters)
        x = np.asarray(scale(IMAGES.pixels), np.float64)
        expected = list(by_hand(start, x, IMAGES.labels, **RECIPES[name]))
    for weights, evaluated in expected:
        state, _ = train(cfg, epochs=1, state=state)
        found = jax.device_get(evaluated_parameters(state))
        assert_close(state.parameters, weights, rtol=1e-6, atol=2e-6)
        assert_close(found, evaluated, rtol=1e-6, atol=2e-6)


def fractions(cfg, steps):
    program, _ = split(cfg)
    return np.asarray(jax.jit(jax.vmap(program.schedule_fraction))(np.asarray(steps, np.int32)))


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


@pytest.mark.parametrize(("b1", "b2"), [(0.5, 0.999), (0.9, 0.999), (0.0, 0.9)])
def test_adam_is_optaxs(b1, b2):
    ours, theirs = scale_by_adam(b1=b1, b2=b2), optax.scale_by_adam(b1=b1, b2=b2)
    weights = jnp.zeros(1000)
    states = [ours.init(weights), theirs.init(weights)]
    for step in range(50):
        gradient = 10.0 ** (step % 7 - 4) * jax.random.normal(jax.random.key(step), weights.shape)
        found, states[0] = ours.update(gradient, states[0])
        expected, states[1] = theirs.update(gradient, states[1])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_run_at_learning_rate_zero_and_its_average_stay_where_they_start():
    cfg = tiny.vib()
    program, _ = split(cfg)
    start = jax.device_get(compiled_initial_state(program)(jax.random.key(0)).parameters)
    state, _ = train(cfg, learning_rate=0.0)
    assert_same(state.parameters, start)
    assert_close(evaluated_parameters(state), start, rtol=5e-5)


# Randomness


def test_a_resumed_run_is_the_uninterrupted_one():
    cfg = tiny.vib(optimizer=fast())
    straight, measured = train(cfg, epochs=4)
    halfway, measured_first = train(cfg, epochs=2)
    resumed, measured_second = train(cfg, epochs=2, state=halfway)
    assert_same(resumed, straight)
    assert measured_first + measured_second == measured


def test_a_seed_decides_a_run():
    first, again, other = (train(tiny.vib(optimizer=fast(), seed=s))[0] for s in (0, 0, 1))
    assert_same(first, again)
    for one, another in zip(
        jax.tree.leaves(first.parameters), jax.tree.leaves(other.parameters), strict=True
    ):
        assert (one != another).all()


def test_initial_weights_are_glorot_uniform_with_zero_biases():
    program, _ = split(tiny.vib(encoder=tiny.mlp(64)))
    state = compiled_initial_state(program)(jax.random.key(0))
    kernel = state.parameters["encoder"]["hidden"]["layers"][0]["kernel"]
    limit = math.sqrt(6 / (784 + 64))
    assert 0.999 * limit < np.abs(kernel).max() <= limit
    tiny.assert_mean(kernel.reshape(-1) ** 2, limit**2 / 3)
    biases = [leaf for leaf in jax.tree.leaves(state.parameters) if leaf.ndim == 1]
    assert len(biases) == 3
    assert not any(bias.any() for bias in biases)


def test_an_epoch_sees_every_image_once():
    """At learning rate zero, the epoch's mean is the mean over the images."""
    cfg = tiny.deterministic()
    state, measured = train(cfg, learning_rate=0.0)
    log_q = tiny.log_q(
        state.parameters, tiny.encoder_outputs(state.parameters, scale(IMAGES.pixels))
    )
    expected = -log_q[np.arange(128), IMAGES.labels].mean()
    for epoch in measured:
        np.testing.assert_allclose(epoch.objective, expected, rtol=1e-5)


def test_every_epoch_has_its_own_order():
    """At learning rate zero, an epoch differs from another by the images that it leaves out."""
    cfg = tiny.deterministic(batch_size=100)
    objectives = [float(m.objective) for m in train(cfg, learning_rate=0.0, epochs=4)[1]]
    differences = np.abs(np.subtract.outer(objectives, objectives))[np.triu_indices(4, k=1)]
    assert differences.min() > 1e-4


def test_the_noise_of_a_step_depends_on_the_step_alone():
    """Of identical images at learning rate zero: two steps of one epoch are those of two epochs."""
    same = jax.tree.map(lambda a: np.repeat(a[:1], 64, axis=0), IMAGES)
    half = jax.tree.map(lambda a: a[:32], same)
    _, single = train(tiny.vib(images=32), images=half, learning_rate=0.0, epochs=4)
    _, double = train(tiny.vib(images=64), images=same, learning_rate=0.0, epochs=2)
    distortions = np.array([m.distortion for m in single])
    differences = np.abs(np.subtract.outer(distortions, distortions))[np.triu_indices(4, k=1)]
    assert differences.min() > 1e-4
    np.testing.assert_allclose(
        [m.distortion for m in double], distortions.reshape(2, 2).mean(axis=1), rtol=1e-5
    )
    rates = [m.rate for m in single + double]
    np.testing.assert_allclose(rates, rates[0], rtol=1e-5)


# Compilation


def strengths(cls, name, *values):
    return [tiny.deterministic(cls(name, value)) for value in values]


@pytest.mark.parametrize(
    "cfgs",
    [
        [tiny.vib(beta=beta) for beta in (0.0, 1e-3, 1.0)],
        [tiny.vib(seed=seed) for seed in (0, 1)],
        [tiny.vib(optimizer=tiny.optimizer("author", learning_rate=r)) for r in (1e-4, 1e-2)],
        [tiny.vib(mc_samples=samples) for samples in (1, 12)],
        strengths(Dropout, "dropout", 0.0, 0.5),
        strengths(ConfidencePenalty, "confidence_penalty", 0.1, 1.0),
        strengths(LabelSmoothing, "label_smoothing", 0.01, 0.1),
    ],
    ids=["beta", "seed", "learning rate", "mc_samples", "dropout", "penalty", "smoothing"],
)
def test_numbers_are_no_part_of_the_program(cfgs):
    assert len({split(cfg)[0] for cfg in cfgs}) == 1


def test_what_shapes_the_computation_is_part_of_the_program():
    cfgs = [
        tiny.vib(),
        tiny.vib(K=4),
        tiny.vib(encoder=tiny.mlp(9)),
        tiny.vib(encoder=tiny.mlp(8, activation="tanh")),
        tiny.vib(decoder=tiny.mlp(8)),
        tiny.vib(bottleneck="full_covariance"),
        tiny.vib(scale_shift=-5.0),
        tiny.vib(train_samples=2),
        tiny.vib(batch_size=64),
        tiny.vib(optimizer=tiny.optimizer("seed_text")),
        tiny.deterministic(),
        *strengths(Dropout, "dropout", 0.5),
    ]
    assert len({split(cfg)[0] for cfg in cfgs}) == len(cfgs)


@pytest.fixture
def compilations():
    """What JAX compiles meanwhile."""
    events = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_sweep_over_numbers_compiles_once(compilations):
    first, *others = (
        tiny.vib(K=5, seed=seed, beta=beta, optimizer=fast())
        for seed, beta in ((0, 0.0), (0, 1.0), (1, 1e-3))
    )
    train(first)
    assert compilations
    compilations.clear()
    for cfg in others:
        train(cfg)
    assert not compilations


# Array axes in the annotations, checked at run time

CHECK_AXES = """
import sys
from functools import partial
from typing import Self

import beartype
import jaxtyping
from beartype.door import die_if_unbearable

def check(function):
    # beartype knows Self only where it decorates the class
    hints = getattr(function, "__annotations__", {})
    function.__annotations__ = {name: hint for name, hint in hints.items() if hint is not Self}
    return beartype.beartype(function)

sys.modules["checker"] = sys.modules["__main__"]
jaxtyping.install_import_hook("vibx", "checker.check")

import jax
from tests import tiny
from vibx.config import ConfidencePenalty, Dropout, LabelSmoothing
from vibx.data import Dataset, scale
from vibx.evaluation import predict_all
from vibx.marginals import StandardNormal
from vibx.objectives import OBJECTIVES
from vibx.training.run import held_out_columns
from vibx.training.state import (
    evaluated_parameters, initial_state, model_definition, model_with, split
)
from vibx.training.step import compiled_initial_state, train_epoch

def check_fields(values):
    with jaxtyping.jaxtyped("context"):
        for name, hint in type(values).__annotations__.items():
            die_if_unbearable(getattr(values, name), hint)

def trace(cfg, images):
    key = jax.random.key(0)
    program, numbers = split(cfg)
    state, measurements = train_epoch(program, initial_state(program, key), images, numbers, key)
    check_fields(measurements)
    weights = evaluated_parameters(state)
    check_fields(predict_all(model_definition(program), weights, images, key, mc_samples=4))
    model, x, y = model_with(program, weights), scale(images.pixels), images.labels
    objective = OBJECTIVES[program.objective]
    samples = program.train_samples
    check_fields(objective(model, x, y, key=key, numbers=numbers, train_samples=samples))
    encoding = model.encoder(x)
    check_fields(encoding)
    z = encoding.sample(key, 3)
    if cfg.beta is not None:
        encoding.log_prob(z), encoding.log_prob(z[0]), StandardNormal().log_prob(z)

images = jax.device_put(tiny.images(128))
for cfg in (
    tiny.vib(decoder=tiny.mlp(6)),
    tiny.vib(train_samples=3),
    tiny.vib(bottleneck="full_covariance"),
    tiny.deterministic(),
    tiny.deterministic(Dropout("dropout", 0.5)),
    tiny.deterministic(ConfidencePenalty("confidence_penalty", 1.0)),
    tiny.deterministic(LabelSmoothing("label_smoothing", 0.1)),
):
    jax.eval_shape(partial(trace, cfg), images)

cfg = tiny.vib()
state = compiled_initial_state(split(cfg)[0])(jax.random.key(0))
held_out_columns(cfg, state, Dataset(images, images, "test"))
"""


def test_arrays_have_the_annotated_axes():
    checked = subprocess.run(
        [sys.executable, "-c", CHECK_AXES],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr[-3000:]
