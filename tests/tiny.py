"""Small models and data, and what several tests say about them."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from omegaconf import OmegaConf

from vibx.config import Config, schemas
from vibx.data import Images
from vibx.data.schemas import IDX
from vibx.marginals import marginal
from vibx.tracing import traceable
from vibx.training.state import model_with, state_shape
from vibx.training.step import compiled_epoch, compiled_initial_state

CONF = Path(__file__).parents[1] / "conf" / "train"


def optimizer(recipe, **changes):
    """An optimizer as conf/ has it, with changes."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / "optimizer" / f"{recipe}.yaml"))
    return schemas.Adam(**{**values, **changes})


def mlp(*widths, activation="relu"):
    return schemas.MLP(name="mlp", widths=widths, activation=activation)


def cnn(*widths, channels=(2, 3), kernel=3, activation="relu"):
    return schemas.CNN(
        name="cnn", widths=widths, channels=channels, kernel=kernel, activation=activation
    )


BOTTLENECKS = {"diagonal": schemas.Diagonal, "full_covariance": schemas.FullCovariance}
STANDARD_NORMAL = schemas.StandardNormal(name="standard_normal")


def standard_normal(K=1):
    return marginal(STANDARD_NORMAL, K, rngs=nnx.Rngs(0))


def vib(*, bottleneck="diagonal", scale_shift=0.0, train_samples=1, images=128, **changes):
    """The configuration of a small VIB; scales near 0.7 rather than 0.007, so that noise shows."""
    defaults = {
        "beta": 0.01,
        "K": 3,
        "seed": 0,
        "epochs": 4,
        "batch_size": 32,
        "mc_samples": 4,
        "data": IDX(name="mnist", train_images=images),
        "encoder": mlp(8),
        "bottleneck": BOTTLENECKS[bottleneck](name=bottleneck, scale_shift=scale_shift),
        "decoder": schemas.Linear(name="linear"),
        "marginal": STANDARD_NORMAL,
        "objective": schemas.VIB(name="vib", train_samples=train_samples),
        "optimizer": optimizer("author"),
    }
    return Config(**{**defaults, **changes})


def deterministic(objective=None, **changes):
    """The configuration of a small deterministic model, maximum likelihood by default."""
    return dataclasses.replace(
        vib(**changes),
        beta=None,
        marginal=None,
        bottleneck=schemas.Deterministic(name="deterministic"),
        objective=objective or schemas.MaximumLikelihood(name="maximum_likelihood"),
    )


def dropout(rate):
    return schemas.Dropout(name="dropout", rate=rate)


def confidence_penalty(weight):
    return schemas.ConfidencePenalty(name="confidence_penalty", weight=weight)


def label_smoothing(epsilon):
    return schemas.LabelSmoothing(name="label_smoothing", epsilon=epsilon)


def images(n, *, seed=0):
    """Images of noise with random labels."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (n, 784), dtype=np.uint8)
    return Images(pixels, draw.integers(0, 10, n, dtype=np.int32))


def parameters(cfg, *, dtype=np.float32):
    """Random weights and biases for a configuration's model."""
    draw = np.random.default_rng(cfg.seed)

    def values(leaf):
        scale = 0.2 if leaf.ndim == 1 else 1 / np.sqrt(leaf.shape[0])
        return (scale * draw.normal(size=leaf.shape)).astype(dtype)

    return jax.tree.map(values, state_shape(cfg).parameters)


def state(cfg, *, seed=0):
    """A state of random numbers, which takes no compilation."""
    draw = np.random.default_rng(seed)
    shapes = state_shape(cfg)
    return jax.tree.map(lambda s: (5 * draw.normal(size=s.shape)).astype(s.dtype), shapes)


def model(cfg, weights):
    return model_with(cfg, weights)


def affine(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def encoder_outputs(weights, x, activation=lambda a: a * (a > 0)):
    """Section 4's encoder by hand: hidden layers, then the encoding's parameters.

    As all of these formulas, in numpy for numpy's arrays, which takes no compilation.
    """
    for _, layer in sorted(weights["encoder"]["hidden"]["layers"].items()):
        x = activation(affine(layer, x))
    return affine(weights["encoder"]["head"], x)


def log_softmax(logits):
    """log S(a) of section 4, to the letter."""
    xp = logits.__array_namespace__()
    return logits - xp.log(xp.sum(xp.exp(logits), axis=-1, keepdims=True))


def log_q(weights, z):
    """log q(y|z) of section 4's logistic-regression decoder by hand."""
    return log_softmax(affine(weights["decoder"]["head"], z))


def assert_mean(draws, expected, *, sigmas=4.0):
    """The mean of independent draws (first axis) is `expected` within its own standard error."""
    draws, expected = np.asarray(draws, np.float64), np.asarray(expected)
    standard_error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert np.all(standard_error > 0)
    worst = np.max(np.abs(draws.mean(axis=0) - expected) / standard_error)
    assert worst < sigmas, f"off by {worst:.1f} standard errors"


IMAGES = images(128)


def train(cfg, *, images=IMAGES, epochs=2, state=None, learning_rate=None):
    """State and measurements after some epochs of one run, as numpy arrays.

    A learning rate of zero, which a configuration refuses, can be given.
    """
    numbers, key = traceable(cfg), jax.random.key(cfg.seed)
    if learning_rate is not None:
        vars(numbers.optimizer)["learning_rate"] = jnp.array(learning_rate)
    state = jax.device_put(state) if state else compiled_initial_state(cfg)(key)
    measurements = []
    for _ in range(epochs):
        state, measured = compiled_epoch(cfg)(numbers, state, images, key)
        measurements.append(jax.device_get(measured))
    return jax.device_get(state), measurements


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def assert_close(tree, other, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), tree, other)


def differ(tree, other):
    return not all(jax.tree.leaves(jax.tree.map(np.array_equal, tree, other)))
