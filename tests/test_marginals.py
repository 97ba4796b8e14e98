"""Marginals: the rate against numpyro, closed forms and Monte Carlo; log r(z) against scipy.

In float64. A marginal with weights of its own, made up here, is trained with the model.
"""

import functools
from dataclasses import dataclass

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.gaussians import GAUSSIANS, from_outputs, log_prob, random_encoding, rate, sample
from vibx.config import schemas
from vibx.data.device import scale
from vibx.encodings import LOG_2PI, DiagonalGaussian, FullCovarianceGaussian
from vibx.marginals import Marginal, StandardNormal, marginal
from vibx.objectives import objective
from vibx.training.checkpoint import Checkpoints, Saved
from vibx.training.step import compiled_initial_state

pytestmark = pytest.mark.usefixtures("float64")

SAMPLES = 20_000

gaussians = pytest.mark.parametrize("name", GAUSSIANS)
few_dimensions = pytest.mark.parametrize("K", [1, 64])


@jax.jit
def numpyro_rate(encoding):
    if isinstance(encoding, DiagonalGaussian):
        ours = dist.Normal(encoding.mean, encoding.scale).to_event(1)
        standard = dist.Normal(jnp.zeros_like(encoding.mean), 1.0).to_event(1)
    else:
        identity = jnp.eye(encoding.mean.shape[-1])
        ours = dist.MultivariateNormal(encoding.mean, scale_tril=encoding.cholesky)
        standard = dist.MultivariateNormal(jnp.zeros_like(encoding.mean), scale_tril=identity)
    return dist.kl_divergence(ours, standard)


@jax.jit
def marginal_log_prob(z):
    return tiny.standard_normal().log_prob(z)


# Rate


@gaussians
@few_dimensions
def test_rate_is_numpyros_kl_divergence(name, K):
    encoding = random_encoding(name, K, batch=(2, 3))
    np.testing.assert_allclose(rate(encoding), numpyro_rate(encoding), rtol=1e-12)


@gaussians
def test_rate_is_the_mean_log_density_ratio(name):
    encoding = random_encoding(name, 3, seed=3)
    z = sample(encoding, jax.random.key(3), SAMPLES)
    log_ratio = np.asarray(log_prob(encoding, z)) - marginal_log_prob(z)
    tiny.assert_mean(log_ratio, rate(encoding))


@pytest.mark.parametrize("cls", [DiagonalGaussian, FullCovarianceGaussian])
def test_rate_of_the_marginal_itself_is_zero(cls):
    identity = np.ones(5) if cls is DiagonalGaussian else np.eye(5)
    assert rate(cls(np.zeros(5), identity)) == 0


@settings(derandomize=True)
@given(
    mean=hnp.arrays(np.float64, 3, elements=st.floats(-5, 5)),
    scale=hnp.arrays(np.float64, 3, elements=st.floats(1e-3, 5)),
    lower=hnp.arrays(np.float64, (3, 3), elements=st.floats(-5, 5)),
)
def test_rate_is_positive_away_from_the_marginal(mean, scale, lower):
    """s^2 - 1 - 2 log s >= (s - 1)^2, so the rate is at least half a squared distance from it."""
    cholesky = np.tril(lower, k=-1) + np.diag(scale)
    least = ((mean**2).sum() + ((scale - 1) ** 2).sum()) / 2
    assert rate(DiagonalGaussian(mean, scale)) >= least * (1 - 1e-9) - 1e-14
    least = ((mean**2).sum() + ((cholesky - np.eye(3)) ** 2).sum()) / 2
    assert rate(FullCovarianceGaussian(mean, cholesky)) >= least * (1 - 1e-9) - 1e-14


@gaussians
def test_float32_rate_keeps_its_precision_at_the_scales_of_training(name):
    outputs = np.random.default_rng(0).normal(size=GAUSSIANS[name].size(64))

    @jax.jit
    def rates(*outputs):
        return [rate(from_outputs(name, each, -5.0)) for each in outputs]

    single, double = rates(outputs.astype(np.float32), outputs)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, double, rtol=1e-6)


@few_dimensions
def test_marginal_log_prob_is_scipys(K):
    z = 3 * np.random.default_rng(0).normal(size=(5, 2, K))
    expected = scipy.stats.norm.logpdf(z).sum(axis=-1)
    np.testing.assert_allclose(marginal_log_prob(z), expected, rtol=1e-12)


# Without a closed form


class WithoutClosedForm(StandardNormal):
    """N(0, I) under a name for which no closed form is registered."""


@gaussians
def test_rate_without_a_closed_form_is_monte_carlo(name):
    """Unbiased: its mean over samples is the closed form within 4 standard errors."""
    K = 3
    encoding = random_encoding(name, K, batch=(2,))
    unknown = WithoutClosedForm(tiny.STANDARD_NORMAL, K, rngs=nnx.Rngs(0))
    z = sample(encoding, jax.random.key(0), SAMPLES)

    @jax.jit
    def rates(z):
        return unknown.rate(encoding, z), jax.vmap(lambda z: unknown.rate(encoding, z[None]))(z)

    found, draws = jax.device_get(rates(z))
    tiny.assert_mean(draws, rate(encoding))
    np.testing.assert_allclose(found, draws.mean(axis=0), rtol=1e-12)


# Trained with the model


@dataclass(frozen=True, kw_only=True)
class Learned(schemas.Named):
    """N(mean, scale^2) with learned mean and scale."""


@marginal.register(Learned)
class LearnedNormal(Marginal):
    def __init__(self, schema, K, *, rngs):
        self.mean = nnx.Param(jnp.zeros(K, jnp.float32))
        self.log_scale = nnx.Param(jnp.zeros(K, jnp.float32))

    def log_prob(self, z):
        epsilon = (z - self.mean) / jnp.exp(self.log_scale)
        return -jnp.sum(epsilon**2 / 2 + self.log_scale + LOG_2PI / 2, axis=-1)


@pytest.fixture(scope="module")
def learned():
    return tiny.vib(marginal=Learned(name="learned"), beta=0.3, images=64)


def test_a_learned_marginal_has_its_gradient(learned):
    """Of -log r(z): z - mean over the variance, and 1 - epsilon^2; weighed by beta."""
    weights, images = tiny.parameters(learned, dtype=np.float64), tiny.images(20)
    weights["marginal"] = jax.tree.map(np.zeros_like, weights["marginal"])

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient_and_sample(weights):
        model, x, key = tiny.model(learned, weights), scale(images.pixels), jax.random.key(0)
        found = objective(learned.objective, model, x, images.labels, key=key, beta=learned.beta)
        return found.objective.mean(), model.encoder(x).sample(key, 1)[0]

    gradient, z = jax.device_get(gradient_and_sample(weights))
    found = gradient["marginal"]
    np.testing.assert_allclose(found["mean"], -0.3 * z.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found["log_scale"], 0.3 * (1 - z**2).mean(axis=0), rtol=1e-9)


def test_a_learned_marginal_is_trained_and_in_checkpoints(learned, tmp_path):
    with jax.enable_x64(False):
        start = compiled_initial_state(learned)(jax.random.key(learned.seed))
        trained, _ = tiny.train(learned, images=tiny.images(64), epochs=1)
        assert trained.parameters["marginal"].keys() == {"mean", "log_scale"}
        for name, values in trained.parameters["marginal"].items():
            assert (values != np.asarray(start.parameters["marginal"][name])).all()
        checkpoints = Checkpoints(tmp_path, learned)
        checkpoints.save(Saved(1, trained, []))
        tiny.assert_same(checkpoints.latest().state, trained)
