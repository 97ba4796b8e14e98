"""A run's epochs: randomness that the seed and the step decide, resuming, arrays' axes."""

import math

import jax
import numpy as np

from tests import tiny
from vibx.data.device import scale
from vibx.training.step import compiled_initial_state

# Steps large enough to show in a few of them.
FAST = tiny.optimizer("author", learning_rate=1e-3)


# Randomness


def test_a_resumed_run_is_the_uninterrupted_one():
    cfg = tiny.vib(optimizer=FAST)
    straight, measured = tiny.train(cfg, epochs=4)
    halfway, measured_first = tiny.train(cfg, epochs=2)
    resumed, measured_second = tiny.train(cfg, epochs=2, state=halfway)
    tiny.assert_same(resumed, straight)
    assert measured_first + measured_second == measured


def test_a_seed_decides_a_run():
    first, again, other = (tiny.train(tiny.vib(optimizer=FAST, seed=s))[0] for s in (0, 0, 1))
    tiny.assert_same(first, again)
    for one, another in zip(
        jax.tree.leaves(first.parameters), jax.tree.leaves(other.parameters), strict=True
    ):
        assert (one != another).all()


def test_initial_weights_are_glorot_uniform_with_zero_biases():
    state = jax.device_get(compiled_initial_state(tiny.vib())(jax.random.key(0)))
    kernel = state.parameters["encoder"]["hidden"]["layers"][0]["kernel"]
    limit = math.sqrt(6 / (784 + 8))
    assert 0.999 * limit < np.abs(kernel).max() <= limit
    tiny.assert_mean(kernel.reshape(-1) ** 2, limit**2 / 3)
    biases = [leaf for leaf in jax.tree.leaves(state.parameters) if leaf.ndim == 1]
    assert len(biases) == 3
    assert not any(bias.any() for bias in biases)


def test_an_epoch_sees_every_image_once():
    """At learning rate zero, the epoch's mean is the mean over the images."""
    cfg = tiny.deterministic()
    state, measured = tiny.train(cfg, learning_rate=0.0)
    x = np.asarray(scale(tiny.IMAGES.pixels))
    log_q = tiny.log_q(state.parameters, tiny.encoder_outputs(state.parameters, x))
    expected = -log_q[np.arange(128), tiny.IMAGES.labels].mean()
    for epoch in measured:
        np.testing.assert_allclose(epoch.objective, expected, rtol=1e-5)


def test_every_epoch_has_its_own_order():
    """At learning rate zero, an epoch differs from another by the images that it leaves out."""
    cfg = tiny.deterministic(batch_size=100)
    objectives = [float(m.objective) for m in tiny.train(cfg, learning_rate=0.0, epochs=4)[1]]
    differences = np.abs(np.subtract.outer(objectives, objectives))[np.triu_indices(4, k=1)]
    assert differences.min() > 1e-4


def test_the_noise_of_a_step_depends_on_the_step_alone():
    """Of identical images at learning rate zero: the steps of an epoch are those of four epochs."""
    same = jax.tree.map(lambda a: np.repeat(a[:1], 128, axis=0), tiny.IMAGES)
    batch = jax.tree.map(lambda a: a[:32], same)
    _, single = tiny.train(tiny.vib(images=32), images=batch, learning_rate=0.0, epochs=8)
    _, four = tiny.train(tiny.vib(), images=same, learning_rate=0.0, epochs=2)
    distortions = np.array([m.distortion for m in single])
    differences = np.abs(np.subtract.outer(distortions, distortions))[np.triu_indices(8, k=1)]
    assert differences.min() > 1e-4
    np.testing.assert_allclose(
        [m.distortion for m in four], distortions.reshape(2, 4).mean(axis=1), rtol=1e-5
    )
    rates = [m.rate for m in single + four]
    np.testing.assert_allclose(rates, rates[0], rtol=1e-5)


# Array axes in the annotations, checked at run time

CHECK_AXES = """
import sys
from functools import partial
from typing import Self, get_type_hints

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
from vibx.data import Dataset
from vibx.data.device import scale
from vibx.evaluation.predict import predict, predictive_samples
from vibx.objectives import objective
from vibx.tracing import traceable
from vibx.training.run import held_out_columns
from vibx.training.state import evaluated_parameters, initial_state, model_definition, model_with
from vibx.training.step import train_epoch

def check_fields(values):
    with jaxtyping.jaxtyped("context"):
        names = {**vars(jaxtyping), "Array": jax.Array}  # of modules that import no jax
        for name, hint in get_type_hints(type(values), names).items():
            die_if_unbearable(getattr(values, name), hint)

def trace(cfg, images):
    key = jax.random.key(0)
    definition, numbers = model_definition(cfg), traceable(cfg)
    state, measurements = train_epoch(definition, numbers, initial_state(cfg, key), images, key)
    check_fields(measurements)
    weights = evaluated_parameters(state)
    predict(definition, weights, images, key, mc_samples=4)
    model, x, y = model_with(cfg, weights), scale(images.pixels), images.labels
    check_fields(predictive_samples(model, x[0], y[0], key, mc_samples=4))
    check_fields(objective(numbers.objective, model, x, y, key=key, beta=numbers.beta))
    encoding = model.encoder(x)
    check_fields(encoding)
    z = encoding.sample(key, 3)
    if cfg.beta is not None:
        encoding.log_prob(z), encoding.log_prob(z[0]), model.marginal.log_prob(z)

images = jax.device_put(tiny.images(128))
for cfg in (
    tiny.vib(decoder=tiny.mlp(6), train_samples=3),
    tiny.vib(encoder=tiny.cnn(4), bottleneck="full_covariance"),
    tiny.deterministic(),
    tiny.deterministic(tiny.dropout(0.5), encoder=tiny.cnn(4)),
    tiny.deterministic(tiny.confidence_penalty(1.0)),
    tiny.deterministic(tiny.label_smoothing(0.1)),
):
    jax.eval_shape(partial(trace, cfg), images)

cfg = tiny.vib()
held_out_columns(cfg, tiny.parameters(cfg), Dataset(images, images, "test"))
"""


def test_arrays_have_the_annotated_axes(interpreter):
    interpreter(CHECK_AXES)
