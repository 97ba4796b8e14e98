"""Classifiers against models by hand, and logit sampling against sampling of z."""

import functools

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from tests import tiny
from vibx.data.device import scale
from vibx.robustness.classifier import classifier, sample_logits, square_factor
from vibx.training.state import model_definition

KEY = jax.random.key(5)
PIXELS = np.random.default_rng(0).integers(0, 256, 784, dtype=np.uint8)
IMAGE = PIXELS / np.float32(255)
gaussians = pytest.mark.parametrize("bottleneck", ["diagonal", "full_covariance"])


def make(cfg, weights, samples):
    return classifier(model_definition(cfg), weights, samples=samples)


@jax.jit  # models of equal structure share a compilation
def answer(classify, key=KEY):
    return classify(IMAGE, key)


@jax.jit
def jacobian(classify):
    """Of the log-probabilities with respect to the image."""
    return jax.jacrev(lambda x: jax.nn.log_softmax(classify(x, KEY)))(IMAGE)


def encoding_of(cfg, weights):
    return tiny.model(cfg, weights).encoder(scale(PIXELS))


def decoded(model, encoding, key, samples):
    """Logits of samples of z, as `sample_logits` are where they are Gaussian."""
    return model.decoder(encoding.sample(key, samples))


def logits_of(draw, cfg, weights, samples=12):
    """Drawn with the key that answers have."""
    drawn = jax.jit(lambda w: draw(tiny.model(cfg, w), encoding_of(cfg, w), KEY, samples))
    return np.asarray(drawn(weights))


def factor(encoding):
    """L of p(z|x) = N(mean, L L')."""
    return np.diag(encoding.scale) if hasattr(encoding, "scale") else np.asarray(encoding.cholesky)


def with_rho(cfg, weights, rho):
    """The weights of a model whose scales are softplus(rho) for all images, its L diagonal."""
    K = cfg.K
    head = {name: np.array(leaf) for name, leaf in weights["encoder"]["head"].items()}
    head["kernel"][:, K:] = 0
    head["bias"][K:] = 0
    head["bias"][K : 2 * K] = rho
    return {**weights, "encoder": {**weights["encoder"], "head": head}}


# Modes


@pytest.mark.parametrize("samples", [None, 12])
def test_deterministic_model_gives_its_logits(samples):
    cfg = tiny.deterministic()
    weights = tiny.parameters(cfg)
    logits = answer(make(cfg, weights, samples))
    expected = tiny.affine(
        weights["decoder"]["head"], tiny.encoder_outputs(weights, np.asarray(scale(PIXELS)))
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@gaussians
def test_mean_mode_gives_the_logits_at_the_mean(bottleneck):
    cfg = tiny.vib(bottleneck=bottleneck, K=16)
    weights = tiny.parameters(cfg)
    mean = tiny.encoder_outputs(weights, np.asarray(scale(PIXELS)))[:16]
    expected = tiny.affine(weights["decoder"]["head"], mean)
    np.testing.assert_allclose(answer(make(cfg, weights, None)), expected, rtol=1e-4, atol=1e-5)


def assert_averages(cfg, weights, logits):
    expected = np.log(scipy.special.softmax(logits, axis=1).mean(axis=0))
    np.testing.assert_allclose(answer(make(cfg, weights, 12)), expected, rtol=1e-4, atol=1e-5)


@gaussians
def test_samples_give_the_log_of_the_averaged_probability(bottleneck):
    cfg = tiny.vib(bottleneck=bottleneck, K=16)
    weights = tiny.parameters(cfg)
    assert_averages(cfg, weights, logits_of(sample_logits, cfg, weights))


@pytest.mark.parametrize(
    "cfg",
    [
        tiny.vib(K=3),
        tiny.vib(K=3, bottleneck="full_covariance"),
        tiny.vib(decoder=tiny.mlp(8), K=16),
    ],
    ids=["diagonal", "full covariance", "hidden layers"],
)
def test_few_dimensions_and_decoders_with_hidden_layers_sample_z(cfg):
    weights = tiny.parameters(cfg)
    assert_averages(cfg, weights, logits_of(decoded, cfg, weights))


def test_averaged_probabilities_do_not_underflow():
    cfg = tiny.vib(K=16)
    weights = tiny.parameters(cfg)
    weights["decoder"]["head"]["bias"] = np.float32(200) * np.arange(10)
    log_p = np.asarray(answer(make(cfg, weights, 12)))
    np.testing.assert_allclose(np.diff(log_p), 200, rtol=0.1)


def test_other_key_other_noise():
    cfg = tiny.vib(K=16)
    classify = make(cfg, tiny.parameters(cfg), 12)
    np.testing.assert_array_equal(answer(classify), answer(classify, KEY))
    assert not np.array_equal(answer(classify), answer(classify, jax.random.key(6)))


def test_other_weights_compile_nothing(compilations):
    cfg = tiny.vib(K=16)
    weights = tiny.parameters(cfg)
    first = np.asarray(answer(make(cfg, weights, 12)))
    compilations.clear()
    second = answer(make(cfg, jax.tree.map(lambda leaf: 2 * leaf, weights), 12))
    assert not compilations
    assert not np.array_equal(first, second)


# Logit sampling


@functools.cache
def drawn(bottleneck):
    """5,000 times 4 sampled logits, and as many decoded samples of z.

    Each with the gradient of the log averaged probability of class 0 with respect to the encoding.
    """
    cfg = tiny.vib(bottleneck=bottleneck, K=16)
    weights = tiny.parameters(cfg)
    model, encoding = tiny.model(cfg, weights), encoding_of(cfg, weights)

    def logits_and_gradient(sample, key):
        def log_p(encoding):
            logits = sample(model, encoding, key, 4)
            return jax.nn.logsumexp(jax.nn.log_softmax(logits)[:, 0]), logits

        gradient, logits = jax.grad(log_p, has_aux=True)(encoding)
        return logits, ravel_pytree(gradient)[0]

    @jax.jit
    def both(keys):
        of_keys = (
            jax.vmap(functools.partial(logits_and_gradient, sample))
            for sample in (sample_logits, decoded)
        )
        return [each(own) for each, own in zip(of_keys, keys, strict=True)]

    return jax.device_get(both(jax.random.split(KEY, (2, 5000))))


@gaussians
def test_sampled_logits_have_the_moments_of_decoded_samples_of_z(bottleneck):
    """N(W'm + b, W'L L'W), in 20,000 samples, to 4.5 standard errors."""
    cfg = tiny.vib(bottleneck=bottleneck, K=16)
    weights = tiny.parameters(cfg)
    encoding = encoding_of(cfg, weights)
    mean = tiny.affine(weights["decoder"]["head"], np.asarray(encoding.mean))
    A = weights["decoder"]["head"]["kernel"].T @ factor(encoding)
    for logits, _ in drawn(bottleneck):
        draws = logits.reshape(20_000, 10)
        tiny.assert_mean(draws, mean, sigmas=4.5)
        centred = np.asarray(draws - mean, np.float64)
        tiny.assert_mean(centred[:, :, None] * centred[:, None, :], A @ A.T, sigmas=4.5)


@gaussians
def test_averaged_probabilities_are_distributed_as_with_samples_of_z(bottleneck):
    (ours, _), (theirs, _) = drawn(bottleneck)
    ours, theirs = (scipy.special.softmax(a, axis=2).mean(axis=1) for a in (ours, theirs))
    p_values = [scipy.stats.ks_2samp(ours[:, i], theirs[:, i]).pvalue for i in range(10)]
    assert min(p_values) > 1e-3


@gaussians
def test_gradients_have_the_mean_of_those_through_samples_of_z(bottleneck):
    (_, ours), (_, theirs) = drawn(bottleneck)
    variance = (np.var(ours, axis=0) + np.var(theirs, axis=0)) / len(ours)
    difference = np.mean(ours, axis=0) - np.mean(theirs, axis=0)
    assert np.all(variance > 0)
    assert np.max(np.abs(difference) / np.sqrt(variance)) < 4.5


compiled_square_factor = jax.jit(square_factor)


@given(rank=st.integers(1, 10), size=st.floats(-12, 3), seed=st.integers(0, 2**31))
@settings(max_examples=25)
def test_square_factor_is_a_factor_whatever_rank_and_size(rank, size, seed):
    draw = np.random.default_rng(seed)
    A = 10**size * draw.normal(size=(10, rank)) @ draw.normal(size=(rank, 32))
    F = np.asarray(compiled_square_factor(np.float32(A)), np.float64)
    np.testing.assert_array_equal(F, np.tril(F))
    assert np.abs(F @ F.T - A @ A.T).max() < 5e-6 * np.trace(A @ A.T)


@gaussians
@pytest.mark.parametrize("rho", [-20.0, -300.0], ids=["2e-9", "1e-38"])
def test_vanishing_scales_give_mean_mode_and_finite_gradients(bottleneck, rho):
    """At beta = 0 scales are tiny: a singular covariance must not spoil value or gradient."""
    cfg = tiny.vib(bottleneck=bottleneck, K=16)
    weights = with_rho(cfg, tiny.parameters(cfg), rho)
    sampled, at_mean = make(cfg, weights, 12), make(cfg, weights, None)
    expected = scipy.special.log_softmax(answer(at_mean))
    np.testing.assert_allclose(answer(sampled), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jacobian(sampled), jacobian(at_mean), rtol=1e-3, atol=1e-4)


def test_one_live_dimension_gives_finite_gradients():
    """Rank 1: the other 15 dimensions of z have no variance at all."""
    cfg = tiny.vib(K=16)
    weights = with_rho(cfg, tiny.parameters(cfg), np.where(np.arange(16) == 0, 0.0, -300.0))
    classify = make(cfg, weights, 12)
    assert np.isfinite(answer(classify)).all()
    assert np.isfinite(jacobian(classify)).all()
