"""Small models and data, and what several tests say about them."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import OmegaConf

from vibx.config import (
    MLP,
    Config,
    Data,
    DeterministicBottleneck,
    GaussianBottleneck,
    Linear,
    Marginal,
    MaximumLikelihood,
    Optimizer,
    VIBObjective,
)
from vibx.data import Images
from vibx.training.state import initial_state, model_with, split

CONF = Path(__file__).parents[1] / "conf" / "train"


def optimizer(name, **changes):
    """An optimizer as conf/ has it, with changes."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / "optimizer" / f"{name}.yaml"))
    return Optimizer(**{**values, **changes})


def mlp(*widths, activation="relu"):
    return MLP("mlp", widths, activation)


def vib(*, bottleneck="diagonal", scale_shift=0.0, train_samples=1, images=128, **changes):
    """The configuration of a small VIB; scales near 0.7 rather than 0.007, so that noise shows."""
    defaults = {
        "beta": 0.01,
        "K": 3,
        "seed": 0,
        "epochs": 4,
        "batch_size": 32,
        "mc_samples": 4,
        "encoder": mlp(8),
        "decoder": Linear("linear"),
        "optimizer": optimizer("author"),
    }
    return Config(
        **{**defaults, **changes},
        data=Data("mnist", train_images=images),
        bottleneck=GaussianBottleneck(bottleneck, scale_shift),
        marginal=Marginal("standard_normal"),
        objective=VIBObjective("vib", train_samples),
    )


def deterministic(objective=None, **changes):
    """The configuration of a small deterministic model, maximum likelihood by default."""
    return dataclasses.replace(
        vib(**changes),
        beta=None,
        marginal=None,
        bottleneck=DeterministicBottleneck("deterministic"),
        objective=objective or MaximumLikelihood("maximum_likelihood"),
    )


def images(n, *, seed=0):
    """Images of noise with random labels."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (n, 784), dtype=np.uint8)
    return Images(pixels, draw.integers(0, 10, n, dtype=np.int32))


def parameters(cfg, *, dtype=np.float32):
    """Random weights and biases for a configuration's model."""
    program, _ = split(cfg)
    shapes = jax.eval_shape(lambda key: initial_state(program, key), jax.random.key(0)).parameters
    draw = np.random.default_rng(cfg.seed)

    def values(leaf):
        scale = 0.2 if leaf.ndim == 1 else 1 / np.sqrt(leaf.shape[0])
        return (scale * draw.normal(size=leaf.shape)).astype(dtype)

    return jax.tree.map(values, shapes)


def model(cfg, weights):
    return model_with(split(cfg)[0], weights)


def affine(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def encoder_outputs(weights, x, activation=lambda a: jnp.maximum(a, 0)):
    """Section 4's encoder by hand: hidden layers, then the encoding's parameters."""
    for _, layer in sorted(weights["encoder"]["hidden"]["layers"].items()):
        x = activation(affine(layer, x))
    return affine(weights["encoder"]["head"], x)


def log_softmax(logits):
    """log S(a) of section 4, to the letter."""
    return logits - jnp.log(jnp.sum(jnp.exp(logits), axis=-1, keepdims=True))


def log_q(weights, z):
    """log q(y|z) of section 4's logistic-regression decoder by hand."""
    return log_softmax(affine(weights["decoder"]["head"], z))


def assert_mean(draws, expected, *, sigmas=4.0):
    """The mean of independent draws (first axis) is `expected` within its own standard error."""
    draws = np.asarray(draws, np.float64)
    standard_error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert np.all(standard_error > 0)
    worst = np.max(np.abs(draws.mean(axis=0) - expected) / standard_error)
    assert worst < sigmas, f"off by {worst:.1f} standard errors"
