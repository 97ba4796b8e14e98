"""Exact probabilities of answers against closed forms, sampling, and a classifier's own answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm

from tests import tiny
from vibx.attacks.per_image import image_keys
from vibx.attacks.scoring import reevaluate
from vibx.robustness.classifier import classifier, gaussian_logits
from vibx.robustness.exact import Probability, goal_probability
from vibx.training.state import model_definition

DRAWS = 100_000


def one(mean, A, goal, *, targeted=True):
    """The probability and its error for one image."""
    value, error = goal_probability(
        np.asarray(mean)[None], np.asarray(A)[None], np.array([goal]), targeted=targeted
    )
    return value[0], error[0]


def sampled(mean, A, goal):
    """How often the goal is the largest of Gaussian logits, and the error of that."""
    z = np.random.default_rng(0).normal(size=(DRAWS, A.shape[1]))
    share = np.mean(np.argmax(mean + z @ A.T, axis=1) == goal)
    return share, np.sqrt((share * (1 - share) + 1 / DRAWS) / DRAWS)


@given(seed=st.integers(0, 2**31), K=st.sampled_from([1, 2, 9, 30]), classes=st.integers(2, 10))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_it_is_how_often_samples_have_the_goal(seed, K, classes):
    """Also where the covariance is singular: K < classes - 1."""
    draw = np.random.default_rng(seed)
    mean, A = draw.normal(size=classes), draw.normal(size=(classes, K))
    value, error = one(mean, A, 0)
    share, share_error = sampled(mean, A, 0)
    assert error < 0.01
    assert abs(value - share) < 4.5 * np.hypot(error, share_error)
    assert one(mean, A, 0, targeted=False) == (1 - value, error)


@pytest.mark.parametrize("lead", [-30.0, -3.0, 0.0, 0.5, 6.0])
def test_two_classes_are_the_normal_distribution(lead):
    A = np.array([[1.0, 2.0], [0.5, -1.0]])
    value, error = one([lead, 0.0], A, 0)
    assert value == pytest.approx(norm.cdf(lead / np.hypot(0.5, 3.0)), rel=1e-8)
    assert error < 1e-12


def test_independent_logits_are_an_integral_of_one_dimension():
    """P(Z_0 is largest of 10) = E[prod Phi(Z_0 - mean_i)]."""
    mean = np.linspace(1, -1, 10)
    points, weights = np.polynomial.hermite_e.hermegauss(100)
    above = np.prod(norm.cdf(mean[0] + points[:, None] - mean[1:]), axis=1)
    expected = above @ weights / np.sqrt(2 * np.pi)
    value, error = one(mean, np.eye(10), 0)
    assert error < 1e-3
    assert abs(value - expected) < 5 * error


def test_small_probabilities_keep_their_digits():
    """The leads of a class that is far behind, by Genz's own program."""
    mean = np.array([-8.0, 1.0, 0.5, 0.0])
    A = np.random.default_rng(3).normal(size=(4, 6))
    lead, differences = mean[0] - mean[1:], A[0] - A[1:]
    exact = multivariate_normal(-lead, differences @ differences.T, abseps=1e-12, releps=1e-8)
    value, error = one(mean, A, 0)
    assert value < 0.02
    assert error < 0.01 * value
    assert abs(value - exact.cdf(np.zeros(3))) < 5 * error


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6])
def test_without_noise_it_is_the_largest_mean(size):
    mean = np.array([0.0, 2.0, 1.0])
    A = size * np.random.default_rng(0).normal(size=(3, 5))
    assert [one(mean, A, goal)[0] for goal in range(3)] == pytest.approx([0, 1, 0], abs=1e-9)


def test_probabilities_of_all_classes_sum_to_one():
    draw = np.random.default_rng(5)
    mean, A = draw.normal(size=10), draw.normal(size=(10, 256))
    values, errors = np.transpose([one(mean, A, goal) for goal in range(10)])
    assert abs(values.sum() - 1) < 4 * np.linalg.norm(errors)


@pytest.mark.parametrize("bottleneck", ["diagonal", "full_covariance"])
def test_it_is_the_share_of_the_classifiers_answers_of_one_sample(bottleneck):
    cfg = tiny.vib(bottleneck=bottleneck, K=16)
    weights, definition = tiny.parameters(cfg), model_definition(cfg)
    weights["decoder"]["head"]["kernel"] *= 3
    images = np.random.default_rng(0).uniform(size=(6, 784)).astype(np.float32)
    logits = gaussian_logits(definition, weights, jnp.asarray(images))
    answers = classifier(definition, weights, samples=1)
    votes = reevaluate(answers, images, image_keys(jax.random.key(0), np.arange(6)), repeats=20_000)
    share = np.asarray(votes) / 20_000
    goals = np.argsort(share, axis=1)[:, -2]  # neither sure nor impossible
    result = goal_probability(*map(np.asarray, logits), goals, targeted=True)
    assert isinstance(result, Probability)
    expected = share[np.arange(6), goals]
    assert (expected > 0.005).any()
    deviation = np.sqrt(expected * (1 - expected) / 20_000 + result.error**2) + 1e-4
    assert (np.abs(result.value - expected) < 4 * deviation).all()


@pytest.mark.parametrize("cfg", [tiny.deterministic(), tiny.vib(K=16, decoder=tiny.mlp(8))])
def test_logits_that_are_not_gaussian_have_none(cfg):
    images = jnp.zeros((2, 784))
    assert gaussian_logits(model_definition(cfg), tiny.parameters(cfg), images) is None
