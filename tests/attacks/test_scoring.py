"""Norms, and votes under independent noise."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests import tiny
from tests.attacks.models import IMAGES, KEY, KEYS, random_linear
from vibx.attacks.per_image import image_keys
from vibx.attacks.scoring import norms, reevaluate, to_8_bits


def test_norms_by_hand():
    images = np.zeros((1, 5), np.float32)
    found = norms(images, np.float32([[0.5, 0.04, 0.002, 0.0019, 0]]))
    assert found.l0_8_bits[0] == 3  # 0.5 / 255 is 0.00196
    assert found.l0_visible[0] == 1
    assert found.l2[0] == pytest.approx(math.sqrt(0.25 + 0.0016 + 4e-6 + 3.61e-6))
    assert found.linf[0] == 0.5


def test_eight_bit_levels_are_images_again():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_8_bits(levels / np.float32(255)), levels)
    assert to_8_bits(np.float32([0.0019, 0.0020, 0.9981, 1])).tolist() == [0, 1, 255, 255]


def test_a_model_without_noise_is_unanimous():
    classify = random_linear(10)
    votes = np.asarray(reevaluate(classify, IMAGES, KEYS, repeats=9))
    predicted = np.argmax(jax.vmap(classify)(IMAGES, KEYS), axis=1)
    np.testing.assert_array_equal(votes, 9 * np.eye(10)[predicted])


def test_votes_are_independent():
    """Class 0 leads by 1 under N(0, 1) noise on each of two logits."""
    classify = jax.tree_util.Partial(lambda x, key: x[:2] + jax.random.normal(key, 2))
    images = np.tile(np.float32([1, 0, 0, 0]), (50, 1))
    votes = np.asarray(reevaluate(classify, images, image_keys(KEY, np.arange(50)), repeats=200))
    p = scipy.stats.norm.cdf(1 / math.sqrt(2))
    np.testing.assert_array_equal(votes.sum(axis=1), 200)
    tiny.assert_mean(votes[:, 0] / 200, p)
    # Binomial: images have noise of their own.
    assert np.var(votes[:, 0]) == pytest.approx(200 * p * (1 - p), rel=0.6)


def test_votes_have_noise_of_no_attack_even_under_its_keys():
    """Such as the noise that Auto-PGD knows of a key."""
    known = jax.random.key_data(jax.random.split(KEY)[0])

    def betraying(known, x, key):
        return jnp.eye(2)[jnp.int32((jax.random.key_data(key) == known).all())]

    classify = jax.tree_util.Partial(betraying, known)
    votes = reevaluate(classify, np.zeros((1, 4), np.float32), KEY[None], repeats=20)
    assert np.asarray(votes).tolist() == [[20, 0]]
