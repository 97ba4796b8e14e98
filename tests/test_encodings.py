"""Encodings against other libraries, closed forms, appendix B and Monte Carlo, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from tests.gaussians import (
    GAUSSIANS,
    factor,
    from_outputs,
    log_prob,
    random_encoding,
    rate,
    sample,
)
from tests.tiny import assert_mean
from vibx.config import schemas
from vibx.encodings import (
    Deterministic,
    DiagonalGaussian,
    FullCovarianceGaussian,
    parameterisation,
)

pytestmark = pytest.mark.usefixtures("float64")

SAMPLES = 20_000

gaussians = pytest.mark.parametrize("name", GAUSSIANS)
dimensions_and_shifts = pytest.mark.parametrize(("K", "shift"), [(1, 0.0), (7, -5.0)])


# Density


@gaussians
@pytest.mark.parametrize("K", [1, 64])
def test_log_prob_is_scipys(name, K):
    encoding = random_encoding(name, K, batch=(2,))
    z = np.random.default_rng(1).normal(size=(4, 2, K))
    expected = [
        scipy.stats.multivariate_normal.logpdf(
            z[:, i],
            encoding.mean[i],
            scipy.stats.Covariance.from_cholesky(np.asarray(factor(encoding)[i])),
        )
        for i in range(2)
    ]
    np.testing.assert_allclose(log_prob(encoding, z), np.stack(expected, axis=1), rtol=1e-11)


# Samples


@gaussians
def test_samples_have_the_encodings_moments_and_are_independent_across_images(name):
    encoding = random_encoding(name, 3, batch=(2,))
    z = np.reshape(sample(encoding, jax.random.key(0), SAMPLES), (SAMPLES, -1))
    mean = encoding.mean.reshape(-1)
    off = z - mean
    assert_mean(z, mean)
    covariance = scipy.linalg.block_diag(*(L @ L.T for L in factor(encoding)))
    assert_mean(off[:, :, None] * off[:, None, :], covariance)


def test_samples_differ_with_the_key_and_repeat_with_it():
    encoding = random_encoding("diagonal", 3)
    first, again, other = (
        np.asarray(sample(encoding, jax.random.key(seed), 2)) for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert not (first == other).any()
    assert not (first[0] == first[1]).any()


@gaussians
@pytest.mark.parametrize("K", [1, 3])
def test_samples_are_reparameterised(name, K):
    """The derivative of mean + L epsilon is I with respect to the mean, epsilon to a row of L."""
    encoding = random_encoding(name, K)

    @jax.jit
    def sample_and_derivatives(encoding):
        def sample(e):
            return e.sample(jax.random.key(0), 1)[0]

        return sample(encoding), jax.jacobian(sample)(encoding)

    z, (to_mean, to_scale) = sample_and_derivatives(encoding)
    epsilon = np.linalg.solve(factor(encoding), z - encoding.mean)
    expected = np.eye(K)[:, :, None] * epsilon
    if name == "diagonal":
        expected = np.diagonal(expected, axis1=1, axis2=2)
    else:
        to_scale, expected = np.tril(to_scale), np.tril(expected)
    np.testing.assert_allclose(to_mean, np.eye(K))
    np.testing.assert_allclose(to_scale, expected, rtol=1e-9, atol=1e-12)


@gaussians
def test_every_output_of_the_encoder_moves_a_sample(name):
    outputs = np.random.default_rng(0).normal(size=GAUSSIANS[name].size(3))

    def sample(outputs):
        return from_outputs(name, outputs, -5.0).sample(jax.random.key(0), 1)[0]

    moved = np.abs(jax.jit(jax.jacobian(sample))(outputs)).max(axis=0)
    assert (moved > 1e-4).all()


def test_a_deterministic_encoding_is_every_sample_of_itself():
    mean = np.random.default_rng(0).normal(size=(2, 3))
    deterministic = parameterisation(schemas.Deterministic(name="deterministic"), 3)
    assert deterministic.size == 3
    encoding = deterministic.encoding(mean)
    assert isinstance(encoding, Deterministic)
    z = sample(encoding, jax.random.key(0), 4)
    np.testing.assert_array_equal(z, np.stack([mean] * 4))


# Outputs of the encoder


@dimensions_and_shifts
def test_diagonal_outputs_are_mean_then_rho(K, shift):
    outputs = np.random.default_rng(K).normal(size=(2, DiagonalGaussian.size(K)))
    encoding = from_outputs("diagonal", outputs, shift)
    np.testing.assert_array_equal(encoding.mean, outputs[:, :K])
    np.testing.assert_allclose(encoding.scale, np.log1p(np.exp(outputs[:, K:] + shift)))


@dimensions_and_shifts
def test_full_covariance_outputs_are_mean_then_rho_then_lower_rows(K, shift):
    """Appendix B: the mean, softplus on the diagonal, and the strictly lower triangle."""
    outputs = np.random.default_rng(K).normal(size=(2, K * (K + 3) // 2))
    encoding = jax.device_get(from_outputs("full_covariance", outputs, shift))
    for i in range(2):
        left = iter(outputs[i])
        mean = [next(left) for _ in range(K)]
        cholesky = np.diag([np.log1p(np.exp(next(left) + shift)) for _ in range(K)])
        for row in range(K):
            for column in range(row):
                cholesky[row, column] = next(left)
        assert next(left, None) is None
        np.testing.assert_array_equal(encoding.mean[i], mean)
        np.testing.assert_allclose(encoding.cholesky[i], cholesky)


@pytest.mark.parametrize("K", [1, 2, 3, 7, 256])
@gaussians
def test_size_is_what_from_outputs_reads(name, K):
    cls = GAUSSIANS[name]
    outputs = jax.ShapeDtypeStruct((cls.size(K),), jnp.float32)
    encoding = jax.eval_shape(lambda o: cls.from_outputs(o, scale_shift=0.0), outputs)
    assert encoding.mean.shape == (K,)
    assert encoding[1].shape == ((K,) if name == "diagonal" else (K, K))
    assert cls.size(K) == (2 * K if name == "diagonal" else K + K * (K + 1) // 2)


def test_extreme_outputs_still_make_a_valid_factor():
    outputs = 30 * np.random.default_rng(0).normal(size=FullCovarianceGaussian.size(64))
    cholesky = np.asarray(from_outputs("full_covariance", outputs, -5.0).cholesky)
    np.testing.assert_array_equal(cholesky, np.tril(cholesky))
    assert (np.diagonal(cholesky) > 0).all()


# The two Gaussians


def test_full_covariance_with_a_diagonal_factor_is_the_diagonal_encoding():
    diagonal = random_encoding("diagonal", 3, batch=(2,))
    full = FullCovarianceGaussian(diagonal.mean, factor(diagonal))
    z = sample(diagonal, jax.random.key(0), 3)
    np.testing.assert_allclose(sample(full, jax.random.key(0), 3), z, rtol=1e-12)
    np.testing.assert_allclose(log_prob(full, z), log_prob(diagonal, z), rtol=1e-12)
    np.testing.assert_allclose(rate(full), rate(diagonal), rtol=1e-12)
