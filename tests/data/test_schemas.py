"""Sizes that a data set does not have, and what a compiled program sees of one."""

from functools import partial

import numpy as np
import pytest

from tests.data.files import error_of
from vibx import tracing
from vibx.choices import GROUPS, identity
from vibx.data import Images, load, load_test
from vibx.data.schemas import IDX, Arrays

mnist = partial(IDX, "mnist")


def assert_same(images, others):
    np.testing.assert_array_equal(images.pixels, others.pixels)
    np.testing.assert_array_equal(images.labels, others.labels)


@pytest.fixture
def own(tmp_path):
    """Twelve training images and five test images."""
    pixels = np.random.default_rng(0).integers(0, 256, (17, 3, 3), np.uint8)
    labels = np.arange(17) % 2
    np.savez(
        tmp_path / "own.npz",
        train_images=pixels[:12],
        train_labels=labels[:12],
        test_images=pixels[12:],
        test_labels=labels[12:],
    )
    return partial(Arrays, "arrays", path=str(tmp_path / "own.npz"))


def test_validation_split_replaces_the_test_set(own):
    full = load(own()).train
    train, held_out, name = load(own(validation=5))
    assert name == "validation"
    assert (len(train.labels), len(held_out.labels)) == (7, 5)
    assert_same(Images(*map(np.concatenate, zip(train, held_out, strict=True))), full)
    assert_same(load_test(own(validation=5)), load(own()).held_out)


def test_limits_keep_the_first_images_of_each_split(own):
    whole = load(own(validation=7))
    data = own(validation=7, train_images=5, held_out_images=3)
    small = load(data)
    assert_same(small.train, Images(whole.train.pixels[:5], whole.train.labels[:5]))
    assert_same(small.held_out, Images(whole.held_out.pixels[:3], whole.held_out.labels[:3]))


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"validation": 3},
        {"validation": 3, "train_images": 9},
        {"train_images": 2, "held_out_images": 5},
        {"validation": 4, "held_out_images": 4},
    ],
)
def test_sizes_are_known_before_anything_is_loaded(own, sizes):
    data = own(**sizes)
    data.check_sizes()
    loaded = load(data)
    assert data.train_size == len(loaded.train.labels) == len(loaded.train.pixels)
    assert data.held_out_size == len(loaded.held_out.labels) == len(loaded.held_out.pixels)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"validation": -1}, "validation=-1: must be at least 0"),
        ({"validation": 60000}, "data.validation=60000: must be between 0 and 59999"),
        ({"train_images": 0}, "train_images=0: must be at least 1, or null for all"),
        ({"held_out_images": -1}, "held_out_images=-1: must be at least 1, or null for all"),
        (
            {"train_images": 50001, "validation": 10000},
            "data.train_images=50001: must be between 1 and 50000, or null for all",
        ),
        (
            {"held_out_images": 10001},
            "data.held_out_images=10001: must be between 1 and 10000, or null for all",
        ),
        (
            {"held_out_images": 6, "validation": 5},
            "data.held_out_images=6: must be between 1 and 5, or null for all",
        ),
    ],
)
def test_impossible_sizes(sizes, message):
    assert error_of(mnist, **sizes) == message


def test_identity_of_the_committed_records_stays():
    assert identity(mnist(train_images=5)) == {
        "name": "mnist",
        "validation": 0,
        "train_images": 5,
        "held_out_images": None,
    }


@pytest.mark.parametrize("name", sorted(GROUPS["data"]))
def test_a_compiled_program_sees_nothing_but_the_description(name):
    assert tracing.names_of(GROUPS["data"][name], role=None) == []
    assert tracing.names_of(GROUPS["data"][name], role="traced") == []


def test_sets_of_the_same_sizes_share_a_compiled_program(own):
    assert tracing.program(mnist()) == tracing.program(IDX("kmnist", held_out_images=10))
    assert tracing.program(mnist()) != tracing.program(own())
    assert tracing.traceable(own()).info.shape == (3, 3, 1)
