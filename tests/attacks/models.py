"""Classifiers and images to attack, and the settings that conf/ has."""

import functools
import gzip
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from omegaconf import OmegaConf

import vibx.data
from tests import tiny
from vibx.attacks.per_image import image_keys
from vibx.attacks.scoring import reevaluate
from vibx.config import chosen, directory
from vibx.robustness.classifier import classifier
from vibx.training.state import model_definition

KEY = jax.random.key(7)
N = 20
KEYS = image_keys(KEY, np.arange(N))
MNIST = Path(vibx.data.__file__).parent / "mnist"


def settings(name, **changes):
    """An attack's settings as conf/ has them, with changes."""
    values = OmegaConf.load(directory("attack") / "attack" / f"{name}.yaml")
    return chosen("attack", {**OmegaConf.to_container(values), **changes})


def linear(W, b, x, key):
    """Logits without noise."""
    return x @ W + b


def noisy_linear(W, b, x, key):
    """Logits with noise in weights and biases."""
    weights, bias = jax.random.split(key)
    return x @ (W + jax.random.normal(weights, W.shape)) + b + jax.random.normal(bias, b.shape)


def random_linear(classes, *, pixels=784, size=0.1, lead=0.0, function=linear):
    """Orthogonal weights, so that the largest other logit is the nearest; class 0 has a lead."""
    draw = np.random.default_rng(classes)
    W = size * np.sqrt(pixels) * np.linalg.qr(draw.normal(size=(pixels, classes)))[0]
    return jax.tree_util.Partial(function, jnp.float32(W), jnp.float32(lead * np.eye(classes)[0]))


def grey_images(n, pixels=784):
    """Images far from black and white, so that the box does not bind."""
    return np.random.default_rng(1).uniform(0.4, 0.6, (n, pixels)).astype(np.float32)


def idx(name, n, *, item, header):
    """The first n items of a file in the format of MNIST."""
    with gzip.open(MNIST / f"{name}-ubyte.gz") as file:
        content = file.read(header + n * item)
    return np.frombuffer(content, np.uint8, offset=header)


@functools.cache
def mnist(name, n):
    """The first images in [0, 1] and their labels."""
    pixels = idx(f"{name}-images-idx3", n, item=784, header=16).reshape(n, 784)
    labels = idx(f"{name}-labels-idx1", n, item=1, header=8)
    return pixels / np.float32(255), labels.astype(np.int32)


IMAGES, LABELS = mnist("t10k", N)
TARGETS = (LABELS + 1 + np.arange(N) % 9) % 10


@functools.cache
def trained(name):
    """A small model after 150 steps on MNIST: about 90% accurate; with much noise if a VIB."""
    cfg = {"vib": tiny.vib, "deterministic": tiny.deterministic}[name](K=16, encoder=tiny.mlp(32))
    images, labels = mnist("train", 4096)
    adam = optax.adam(3e-3)

    def loss(weights, rows, key):
        model = tiny.model(cfg, weights)
        encoding = model.encoder(2 * jnp.asarray(images)[rows] - 1)
        logits = model.decoder(encoding.sample(key, 1)[0])
        distortion = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.asarray(labels)[rows]
        )
        rate = encoding.mean**2 / 2
        if name == "vib":
            rate = (encoding.mean**2 + encoding.scale**2) / 2 - jnp.log(encoding.scale)
        beta = cfg.beta if name == "vib" else 0.0
        return jnp.mean(distortion + beta * rate.sum(axis=-1))

    def step(carry, key):
        weights, state = carry
        rows = jax.random.randint(key, (64,), 0, len(labels))
        update, state = adam.update(jax.grad(loss)(weights, rows, key), state)
        return (optax.apply_updates(weights, update), state), None

    weights = tiny.parameters(cfg)
    keys = jax.random.split(KEY, 150)
    (weights, _), _ = jax.jit(lambda w: jax.lax.scan(step, (w, adam.init(w)), keys))(weights)
    return classifier(model_definition(cfg), weights, samples=12)


def accuracy(classify, images):
    """On adversarial versions of the first images, under independent noise, 50 times each."""
    rows = np.arange(len(images))
    votes = reevaluate(classify, images, image_keys(jax.random.key(8), rows), repeats=50)
    return np.asarray(votes)[rows, LABELS[rows]].mean() / 50
