"""Networks against hand-written layers: dropout's moments, convolutions by scipy, batch axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from vibx.networks import ACTIVATIONS, dropout, layers
from vibx.objectives import deterministic_logits

pytestmark = pytest.mark.usefixtures("float64")

KEY = jax.random.key(7)
X = np.random.default_rng(0).uniform(-1, 1, (6, 784))


def hidden(schema, shape=(28, 28, 1)):
    """Hidden layers with random weights and biases, drawn without a compilation."""
    abstract = nnx.eval_shape(lambda: layers(schema, shape, rngs=nnx.Rngs(0)))
    definition, shapes = nnx.split(abstract)
    draw = np.random.default_rng(0)
    return nnx.merge(definition, jax.tree.map(lambda s: draw.normal(size=s.shape), shapes))


def applied(network, x, **dropout):
    return np.asarray(jax.jit(lambda x: network(x, **dropout))(x))


# Dropout


def test_dropout_preserves_the_expected_value():
    compiled = jax.jit(lambda seed, rate: dropout(jnp.ones(20_000), jax.random.key(seed), rate))

    @settings(derandomize=True, max_examples=30)
    @given(rate=st.floats(0.01, 0.99), seed=st.integers(0, 2**31))
    def check(rate, seed):
        units = np.asarray(compiled(seed, rate))
        kept = units != 0
        np.testing.assert_allclose(units[kept], 1 / (1 - rate), rtol=1e-12)
        tiny.assert_mean(units, 1, sigmas=5)

    check()


def test_hidden_layers_drop_their_units_independently():
    """With identity layers, a unit survives both with probability (1 - rate)^2, times its gain."""
    width, rate = 784, 0.4
    network = hidden(tiny.mlp(width, width))
    for layer in network.layers:
        layer.kernel[...], layer.bias[...] = np.eye(width), np.zeros(width)
    ones = np.ones((30, width))
    units = applied(network, ones, dropout_key=KEY, dropout_rate=rate).reshape(-1)
    np.testing.assert_allclose(units[units != 0], 1 / (1 - rate) ** 2)
    tiny.assert_mean(units, 1)


def test_dropout_of_the_encoder_preserves_the_expected_logits():
    """Which are linear in the last hidden layer."""
    cfg = tiny.deterministic(tiny.dropout(0.5), encoder=tiny.mlp(16))
    weights = tiny.parameters(cfg, dtype=np.float64)
    model = tiny.model(cfg, weights)

    @jax.jit
    @jax.vmap
    def logits(key):
        return deterministic_logits(model, X, dropout_key=key, dropout_rate=0.5)

    z = tiny.encoder_outputs(weights, X)
    expected = tiny.affine(weights["decoder"]["head"], z)
    tiny.assert_mean(logits(jax.random.split(KEY, 4000)), expected)


def test_dropout_reaches_every_layer_of_a_cnn():
    """Kernels of one pixel of value 1 keep an image of ones; what differs is what was dropped."""
    network, rate = hidden(tiny.cnn(4, channels=(1, 1), kernel=1), (32, 32, 1)), 0.4
    for layer in [*network.layers, *network.dense.layers]:
        layer.kernel[...] = np.ones(layer.kernel.shape)
        layer.bias[...] = np.zeros(layer.bias.shape)
    x = np.ones((500, 32 * 32))
    np.testing.assert_array_equal(applied(network, x[:1]), 64)
    units = applied(network, x, dropout_key=KEY, dropout_rate=rate)
    kept = units != 0
    tiny.assert_mean(kept.reshape(-1), 1 - rate)
    tiny.assert_mean(units.mean(axis=1), 64)
    survivors = units[kept] * (1 - rate) ** 3  # of 64 pixels: a whole number of them
    np.testing.assert_allclose(survivors, survivors.round(), rtol=1e-9)
    tiny.assert_mean(survivors, 64 * (1 - rate) ** 2)


# Dense layers


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("relu", lambda a: np.maximum(a, 0)),
        ("tanh", np.tanh),
        ("silu", lambda a: a / (1 + np.exp(-a))),
        ("gelu", lambda a: a / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))),
    ],
)
def test_an_encoder_is_its_layers_by_hand(name, by_hand):
    cfg = tiny.deterministic(encoder=tiny.mlp(5, 4, activation=name))
    weights = tiny.parameters(cfg, dtype=np.float64)
    found = jax.jit(lambda x: tiny.model(cfg, weights).encoder(x).mean)(X)
    np.testing.assert_allclose(found, tiny.encoder_outputs(weights, X, by_hand), rtol=1e-10)


def test_every_activation_of_the_schema_exists():
    for name in ACTIVATIONS:
        tiny.mlp(1, activation=name)
    with pytest.raises(Exception, match=f"one of {', '.join(ACTIVATIONS)}"):
        tiny.mlp(1, activation="none")


def test_a_decoder_with_hidden_layers_is_its_layers_by_hand():
    cfg = tiny.deterministic(decoder=tiny.mlp(6))
    weights = tiny.parameters(cfg, dtype=np.float64)
    z = np.random.default_rng(0).normal(size=(2, 5, 3))
    layer = weights["decoder"]["hidden"]["layers"][0]
    units = np.maximum(tiny.affine(layer, z), 0)
    expected = tiny.affine(weights["decoder"]["head"], units)
    found = jax.jit(lambda z: tiny.model(cfg, weights).decoder(z))(z)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# Convolutions


def convolved(image, kernel, bias):
    """A zero-padded cross-correlation at every second pixel: what "SAME" means for a stride of 2.

    The last window ends with the image; where an odd number of pixels is missing, one more of them
    is added behind it than before it.
    """
    size = kernel.shape[0]
    padding = [(0, 0)] * 3
    for axis in (0, 1):
        length = image.shape[axis]
        missing = max(0, 2 * (-(-length // 2) - 1) + size - length)
        padding[axis] = (missing // 2, missing - missing // 2)
    padded = np.pad(image, padding)
    channels = [
        sum(
            scipy.signal.correlate2d(padded[..., i], kernel[..., i, o], mode="valid")
            for i in range(image.shape[-1])
        )
        for o in range(kernel.shape[-1])
    ]
    return np.stack(channels, axis=-1)[::2, ::2] + bias


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [((28, 28, 1), 3), ((7, 9, 2), 3), ((7, 9, 2), 2), ((1, 5, 1), 5)],
)
def test_a_cnn_is_scipys_correlations_then_dense_layers(shape, kernel):
    network = hidden(tiny.cnn(4, channels=(2, 3), kernel=kernel), shape)
    image = np.random.default_rng(1).uniform(-1, 1, shape)
    found = applied(network, image.reshape(-1))
    units = image
    for layer in network.layers:
        units = np.maximum(convolved(units, np.asarray(layer.kernel), np.asarray(layer.bias)), 0)
    units = units.reshape(-1)
    for layer in network.dense.layers:
        units = np.maximum(units @ np.asarray(layer.kernel) + np.asarray(layer.bias), 0)
    assert found.shape == (4,) == (network.outputs,)
    assert np.any(found > 0)
    np.testing.assert_allclose(found, units, rtol=1e-10, atol=1e-12)


def test_a_cnn_sees_each_image_alone():
    network = hidden(tiny.cnn(4), (7, 9, 2))
    compiled = jax.jit(lambda x: network(x))
    images = np.random.default_rng(2).uniform(-1, 1, (2, 3, 7 * 9 * 2))
    found = compiled(images)
    assert found.shape == (2, 3, 4)
    alone = [[compiled(image) for image in row] for row in images]
    np.testing.assert_allclose(found, alone, rtol=1e-10)


def test_a_cnn_without_dense_layers_gives_its_last_image():
    network = hidden(tiny.cnn(channels=(2, 3)), (7, 9, 2))
    assert network.outputs == 2 * 3 * 3
    assert applied(network, np.zeros(7 * 9 * 2)).shape == (18,)


def test_a_vib_with_a_cnn_has_the_sizes_of_its_data():
    cfg = tiny.vib(encoder=tiny.cnn(4))
    encoding = jax.eval_shape(tiny.model(cfg, tiny.parameters(cfg)).encoder, X)
    assert encoding.mean.shape == encoding.scale.shape == (6, 3)
