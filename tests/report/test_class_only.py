"""The class-only optimum of equation 17 against its own mathematics."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from vibx.encodings import DiagonalGaussian
from vibx.marginals import StandardNormal
from vibx.report import class_only
from vibx.report.class_only import CLASSES, K

H_Y = math.log(CLASSES)


@pytest.fixture(scope="module")
def recorded():
    return class_only.read()


@pytest.fixture(scope="module")
def least(recorded):
    """The least objective at each beta, and the collapse at 1."""
    by_beta = {}
    for optimum in recorded:
        by_beta.setdefault(optimum.beta, optimum)
    return [*by_beta.values(), class_only.evaluate(1.0, class_only.collapsed())]


def any_model(seed):
    """Neither an optimum nor symmetric."""
    vector = class_only.pack(class_only.scattered(seed, 0.5))
    return class_only.unpack(vector + np.random.default_rng(seed).normal(0, 0.2, len(vector)))


def sampled(model, n, seed):
    """Samples of z for each class, [classes, n, K], and log q(y|z), [classes, n, classes]."""
    noise = np.random.default_rng(seed).normal(size=(CLASSES, n, K))
    z = model.means[:, None] + np.einsum("yij,ynj->yni", model.cholesky, noise)
    return z, scipy.special.log_softmax(z @ model.kernel + model.bias, axis=-1)


def test_a_packed_model_is_the_same_model():
    model = any_model(0)
    for part, again in zip(model, class_only.unpack(class_only.pack(model)), strict=True):
        np.testing.assert_allclose(again, part)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_gradient_is_that_of_finite_differences(beta):
    vector = class_only.pack(any_model(1))
    given = beta, *class_only.quadrature(8)
    _, gradient = class_only.objective_and_gradient(vector, *given)
    numeric = scipy.optimize.approx_fprime(
        vector, lambda v: class_only.objective_and_gradient(v, *given)[0], 1e-6
    )
    np.testing.assert_allclose(gradient, numeric, rtol=0, atol=1e-5)


def test_quadrature_agrees_with_samples(least):
    """Within four standard errors, where encodings are optima and where they are not."""
    n = 40_000
    for model in (any_model(2), *(optimum.model for optimum in least[::10])):
        _, log_q = sampled(model, n, seed=3)
        losses = -log_q[np.arange(CLASSES), :, np.arange(CLASSES)]
        error = np.sqrt(np.sum(losses.var(axis=1) / n)) / CLASSES
        distortion, _ = class_only.terms(model, *class_only.quadrature(class_only.FINE_NODES))
        assert abs(distortion - losses.mean()) <= 4 * error + 1e-12


def test_the_rate_is_that_of_samples():
    """log p(z|y) - log r(z) at the samples."""
    model = any_model(4)
    z, _ = sampled(model, 40_000, seed=5)
    log_p = [
        scipy.stats.multivariate_normal(mean, factor @ factor.T).logpdf(of_class)
        for mean, factor, of_class in zip(model.means, model.cholesky, z, strict=True)
    ]
    log_r = scipy.stats.multivariate_normal(np.zeros(K)).logpdf(z)
    differences = np.stack(log_p) - log_r
    error = np.sqrt(np.sum(differences.var(axis=1) / differences.shape[1])) / CLASSES
    assert abs(class_only.rate(model) - differences.mean()) < 4 * error


def test_the_exact_error_agrees_with_samples(least):
    n = 10_000
    for model in (any_model(6), *(optimum.model for optimum in least[::5])):
        _, log_q = sampled(model, n, seed=7)
        wrong = log_q.argmax(axis=-1) != np.arange(CLASSES)[:, None]
        p = class_only.error_1(model)
        # A tie, which the collapse is, goes to the first class in samples, to none in the sum.
        if np.ptp(log_q) > 0:
            assert abs(wrong.mean() - p) <= 4 * math.sqrt(p * (1 - p) / wrong.size) + 1e-6


def test_an_average_of_one_sample_errs_as_one_sample():
    model = any_model(8)
    p = class_only.error_1(model)
    error = math.sqrt(p * (1 - p) / class_only.ANSWERS)
    assert abs(class_only.error_mc(model, samples=1) - p) < 4 * error
    assert class_only.error_mc(model, samples=12) < p


# Beta >= 1


def test_the_collapsed_encoder_attains_the_entropy_of_the_classes():
    for beta in (0.5, 1.0, 3.0):
        optimum = class_only.evaluate(beta, class_only.collapsed())
        assert optimum.objective == pytest.approx(H_Y, abs=1e-13)
        assert optimum.rate == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_nothing_is_below_the_entropy_of_the_classes_at_beta_of_one_or_more(beta, least):
    """From the optimum just below, which has not collapsed, down as far as it goes."""
    start = least[-2].model
    assert class_only.minimise(beta, start).objective >= H_Y - 1e-9
    for optimum in [*least, class_only.evaluate(beta, any_model(9))]:
        assert optimum.distortion + beta * optimum.rate >= H_Y - 1e-9


# Below


def test_the_rate_bounds_the_information_and_all_are_below_the_collapse(least):
    for optimum in least[:-1]:
        assert optimum.objective == pytest.approx(optimum.distortion + optimum.beta * optimum.rate)
        assert optimum.rate > H_Y - optimum.distortion > 0
        assert optimum.objective < H_Y


def test_the_optimum_rises_concavely_and_its_slope_is_the_rate(least):
    """A minimum over straight lines in beta, one for each encoder: distortion + beta rate."""
    # Below 1e-3 betas are closer to each other than the search is to its end.
    least = [optimum for optimum in least if optimum.beta >= 1e-3]
    betas, values, rates = np.array([(o.beta, o.objective, o.rate) for o in least]).T
    slopes = np.diff(values) / np.diff(betas)
    assert (slopes > 0).all()
    assert (np.diff(slopes) < 0).all()
    assert (np.diff(rates) < 0).all()
    for optimum in least:  # no encoder's line, whose slope is its rate, passes below the curve
        assert (optimum.distortion + betas * optimum.rate >= values - 1e-3).all()


def test_recorded_numbers_are_those_of_the_recorded_encodings(recorded):
    for optimum in recorded:
        again = class_only.evaluate(optimum.beta, optimum.model)
        assert again.objective == pytest.approx(optimum.objective, abs=1e-12)
        assert class_only.error_1(optimum.model) == pytest.approx(optimum.error_1, abs=1e-9)
    for optimum in recorded[::40]:
        assert class_only.error_mc(optimum.model) == pytest.approx(optimum.error_mc, abs=1e-9)


@pytest.mark.parametrize("beta", [0.01, 0.03, 0.1, 0.3])
def test_a_diagonal_encoder_of_more_dimensions_attains_it_too(least, beta):
    """As at K = 256: the rate as training has it, its other coordinates r(z)'s."""
    (optimum,) = (optimum for optimum in least if optimum.beta == beta)
    aligned = class_only.evaluate(beta, class_only.aligned(optimum.model))
    assert optimum.objective - 1e-9 < aligned.objective < optimum.objective + 2e-3
    deviations = np.diagonal(aligned.model.cholesky, axis1=1, axis2=2)
    encoding = DiagonalGaussian(
        jnp.pad(aligned.model.means, [(0, 0), (0, 6)]),
        jnp.pad(deviations, [(0, 0), (0, 6)], constant_values=1),
    )
    rate = StandardNormal(None, encoding.mean.shape[-1], rngs=None).rate(encoding, None)
    assert float(rate.mean()) == pytest.approx(aligned.rate, rel=1e-5)


def test_a_recorded_optimum_is_one(least):
    """As many steps again gain no more than the module says."""
    for optimum in [o for o in least if o.beta in (0.3, 0.5, 0.99)]:
        again = class_only.minimise(optimum.beta, optimum.model)
        assert -3e-3 < again.objective - optimum.objective < 1e-4


def test_known_values(recorded):
    """From another program: classes on a circle at beta = 0.99, and 0.33 nats at beta = 0.1.

    Its optimum was of that kind; stripes are below it.
    """
    found = {(optimum.beta, optimum.start): optimum for optimum in recorded}
    circle = found[0.99, "circle"]
    assert circle.error_1 == pytest.approx(0.613, abs=0.01)
    assert circle.error_mc == pytest.approx(0.303, abs=0.03)
    assert found[0.1, "circle"].objective == pytest.approx(0.33, abs=0.015)
    for beta in (0.1, 0.99):
        assert found[beta, "stripes"].objective < found[beta, "circle"].objective
