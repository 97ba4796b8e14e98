"""The data sets: prepared by TFDS for real, once, and then read from the cache."""

import gzip
import os
import shutil
import socket

import hypothesis.extra.numpy as hnp
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import OFFLINE_LOAD, PACKAGE, start
from vibx import data

BUNDLED = PACKAGE / "mnist"
FIRST_TEST_ZEROS = [3, 10, 13, 25, 28, 55, 69, 71, 101, 126]


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIBX_DATA_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def idx(file, shape):
    values = np.frombuffer(gzip.decompress((BUNDLED / file).read_bytes()), np.uint8)
    return values[-np.prod(shape) :].reshape(shape)


def assert_same(images, others):
    np.testing.assert_array_equal(images.pixels, others.pixels)
    np.testing.assert_array_equal(images.labels, others.labels)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def error_of(*args, **kwargs):
    with pytest.raises(data.DataError) as caught:
        data.load(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_processes_prepare_once_between_them(preparation):
    cache, written = preparation
    assert sum(err.count("preparing mnist") for _, err in written) == 1
    assert sorted(os.listdir(cache)) == ["mnist", "mnist.lock"]


def test_preparation_says_one_line(preparation):
    _, written = preparation
    assert sorted(written) == [
        ("", ""),
        ("", "INFO:vibx.data:preparing mnist (once, about 20 s)\n"),
    ]


def test_arrays_equal_the_idx_files_in_their_order(cache):
    loaded = data.load("mnist")
    assert loaded.held_out_name == "test"
    for images, prefix, n in ((loaded.train, "train", 60000), (loaded.held_out, "t10k", 10000)):
        assert (images.pixels.dtype, images.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(
            images.pixels, idx(f"{prefix}-images-idx3-ubyte.gz", (n, 784))
        )
        np.testing.assert_array_equal(images.labels, idx(f"{prefix}-labels-idx1-ubyte.gz", (n,)))


def test_first_zeros_of_the_test_set(cache):
    labels = data.load("mnist").held_out.labels
    assert np.flatnonzero(labels == 0)[:10].tolist() == FIRST_TEST_ZEROS


def test_cached_load_imports_no_tfds(cache):
    process = start(OFFLINE_LOAD + 'assert "tensorflow_datasets" not in sys.modules', cache)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("file", ["train_labels.npy", "test_pixels.npy", "SHA256SUMS"])
def test_damaged_cache_is_named_and_rebuilt(cache, tmp_path, monkeypatch, caplog, file):
    good = data.load("mnist")
    monkeypatch.setattr(
        data, "_prepare", lambda *args: {"train": good.train, "test": good.held_out}
    )
    shutil.copytree(cache / "mnist", tmp_path / "mnist")
    monkeypatch.setenv("VIBX_DATA_DIR", str(tmp_path))
    flip_a_byte(tmp_path / "mnist" / file)

    assert_same(data.load("mnist").held_out, good.held_out)

    [warning] = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / "mnist") in warning
    assert file in warning
    assert (tmp_path / "mnist" / file).read_bytes() == (cache / "mnist" / file).read_bytes()
    caplog.clear()
    assert_same(data.load("mnist").train, good.train)
    assert not caplog.records


@pytest.mark.parametrize("file", sorted(path.name for path in BUNDLED.glob("*.gz")))
def test_corrupted_archive_is_refused(empty_cache, tmp_path, monkeypatch, file):
    shutil.copytree(BUNDLED, tmp_path / "archives")
    flip_a_byte(tmp_path / "archives" / file)
    monkeypatch.setitem(data._BUNDLED, "mnist", tmp_path / "archives")
    assert str(tmp_path / "archives" / file) in error_of("mnist")
    assert os.listdir(empty_cache) == ["mnist.lock"]


def test_missing_archives_are_named(empty_cache):
    archives = empty_cache / "archives" / "kmnist"
    shutil.copytree(BUNDLED, archives)
    (archives / "train-labels-idx1-ubyte.gz").unlink()
    message = error_of("kmnist")
    assert "no network in tests" in message
    assert message.endswith(f"put train-labels-idx1-ubyte.gz in {archives}")


def test_archives_put_in_the_cache_are_used(cache, empty_cache, monkeypatch):
    monkeypatch.delitem(data._BUNDLED, "mnist")
    shutil.copytree(BUNDLED, empty_cache / "archives" / "mnist")
    from_archives = data.load("mnist")
    monkeypatch.setenv("VIBX_DATA_DIR", str(cache))
    assert_same(from_archives.train, data.load("mnist").train)


def test_unusable_cache_directory(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIBX_DATA_DIR", str(tmp_path / "file"))
    assert str(tmp_path / "file") in error_of("mnist")


def test_validation_split_replaces_the_test_set(cache):
    full = data.load("mnist").train
    train, held_out, name = data.load("mnist", validation=10000)
    assert name == "validation"
    assert (len(train.labels), len(held_out.labels)) == (50000, 10000)
    rejoined = data.Images(*(np.concatenate(parts) for parts in zip(train, held_out, strict=True)))
    assert_same(rejoined, full)


def test_limits_keep_the_first_images_of_each_split(cache):
    whole = data.load("mnist", validation=7)
    small = data.load("mnist", validation=7, train_images=5, held_out_images=3)
    assert_same(small.train, data.Images(whole.train.pixels[:5], whole.train.labels[:5]))
    assert_same(small.held_out, data.Images(whole.held_out.pixels[:3], whole.held_out.labels[:3]))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"validation": -1}, "validation=-1: must be from 0 to 59999"),
        ({"validation": 60000}, "validation=60000: must be from 0 to 59999"),
        ({"train_images": 0}, "train_images=0: must be from 1 to 60000"),
        ({"train_images": -1}, "train_images=-1: must be from 1 to 60000"),
        (
            {"train_images": 50001, "validation": 10000},
            "train_images=50001: must be from 1 to 50000",
        ),
        ({"held_out_images": 10001}, "held_out_images=10001: must be from 1 to 10000"),
        ({"held_out_images": 6, "validation": 5}, "held_out_images=6: must be from 1 to 5"),
    ],
)
def test_impossible_sizes(cache, sizes, message):
    assert error_of("mnist", **sizes) == message


def test_unknown_name():
    assert error_of("cifar10") == (
        "unknown data set 'cifar10': choose one of mnist, fashion_mnist, kmnist"
    )


def test_scale_of_every_value():
    values = np.arange(256, dtype=np.uint8)
    for scaled in (data.scale(values), jax.jit(data.scale)(values)):
        assert scaled.dtype == np.float32
        assert (scaled.min(), scaled.max()) == (-1, 1)
        np.testing.assert_allclose(scaled, np.arange(256) / 127.5 - 1, rtol=0, atol=1e-7)


@settings(max_examples=25)
@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3, max_side=5)))
def test_scale_keeps_shape_and_can_be_undone(pixels):
    scaled = data.scale(pixels)
    assert scaled.shape == pixels.shape
    np.testing.assert_array_equal(np.rint((np.asarray(scaled) + 1) * 127.5), pixels)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.data())
def test_epoch_order_is_full_batches_of_a_permutation(seed, n, draw):
    batch_size = draw.draw(st.integers(1, n))
    key = jax.random.key(seed)
    order = np.asarray(data.epoch_order(key, n=n, batch_size=batch_size))
    assert order.dtype == np.int32
    assert order.shape == (n // batch_size, batch_size)
    assert len(np.unique(order)) == order.size
    assert order.min() >= 0
    assert order.max() < n
    np.testing.assert_array_equal(order, data.epoch_order(key, n=n, batch_size=batch_size))


def test_epoch_order_in_jit_differs_between_keys():
    epoch_order = jax.jit(data.epoch_order, static_argnames=("n", "batch_size"))
    orders = [epoch_order(jax.random.key(seed), n=60000, batch_size=100) for seed in (0, 0, 1)]
    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).mean() > 0.99


@pytest.mark.parametrize("batch_size", [0, 11])
def test_epoch_order_without_one_full_batch(batch_size):
    with pytest.raises(data.DataError, match=f"batch_size={batch_size}: must be from 1 to 10"):
        data.epoch_order(jax.random.key(0), n=10, batch_size=batch_size)
