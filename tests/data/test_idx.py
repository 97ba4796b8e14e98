"""MNIST: prepared by TFDS for real, once, and then read from the cache."""

import gzip
import os
import shutil

import numpy as np
import pytest

from tests.conftest import OFFLINE_LOAD, start
from tests.data.files import error_of, flip_a_bit
from vibx.data import idx, load, load_test
from vibx.data.schemas import IDX

BUNDLED = idx.BUNDLED / "mnist"
MNIST = IDX("mnist")
FIRST_TEST_ZEROS = [3, 10, 13, 25, 28, 55, 69, 71, 101, 126]


def archived(file, shape):
    values = np.frombuffer(gzip.decompress((BUNDLED / file).read_bytes()), np.uint8)
    return values[-np.prod(shape) :].reshape(shape)


def test_processes_prepare_once_between_them(preparation):
    cache, written = preparation
    assert sum(err.count("preparing mnist") for _, err in written) == 1
    assert sorted(os.listdir(cache)) == ["mnist", "mnist.lock"]


def test_preparation_says_one_line(preparation):
    _, written = preparation
    assert sorted(written) == [
        ("", ""),
        ("", "INFO:vibx.data.idx:preparing mnist (once)\n"),
    ]


def test_arrays_equal_the_idx_files_in_their_order(cache):
    loaded = load(MNIST)
    assert loaded.held_out_name == "test"
    for images, prefix, n in ((loaded.train, "train", 60000), (loaded.held_out, "t10k", 10000)):
        assert (images.pixels.dtype, images.labels.dtype) == (np.uint8, np.int32)
        pixels = archived(f"{prefix}-images-idx3-ubyte.gz", (n, 784))
        np.testing.assert_array_equal(images.pixels, pixels)
        np.testing.assert_array_equal(
            images.labels, archived(f"{prefix}-labels-idx1-ubyte.gz", (n,))
        )


def test_the_table_of_sets_describes_what_is_loaded(cache):
    loaded = load(MNIST)
    assert loaded.train.pixels.shape == (MNIST.info.train_images, MNIST.info.pixels)
    assert loaded.held_out.pixels.shape == (MNIST.info.test_images, MNIST.info.pixels)
    assert MNIST.info.classes == loaded.train.labels.max() + 1


def test_first_zeros_of_the_test_set(cache):
    labels = load_test(MNIST).labels
    assert np.flatnonzero(labels == 0)[:10].tolist() == FIRST_TEST_ZEROS


def test_cached_load_imports_neither_tfds_nor_jax(cache):
    script = OFFLINE_LOAD + 'assert not {"tensorflow_datasets", "jax"} & set(sys.modules)'
    process = start(script, cache)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("file", sorted(path.name for path in BUNDLED.glob("*.gz")))
def test_corrupted_archive_is_refused(empty_cache, tmp_path, monkeypatch, file):
    shutil.copytree(BUNDLED, tmp_path / "mnist")
    flip_a_bit(tmp_path / "mnist" / file)
    monkeypatch.setattr(idx, "BUNDLED", tmp_path)
    assert str(tmp_path / "mnist" / file) in error_of(IDX, name="mnist")
    assert os.listdir(empty_cache) == ["mnist.lock"]


def test_missing_archives_are_named(empty_cache):
    archives = empty_cache / "archives" / "kmnist"
    shutil.copytree(BUNDLED, archives)
    (archives / "train-labels-idx1-ubyte.gz").unlink()
    message = error_of(IDX, name="kmnist")
    assert "no network in tests" in message
    assert message.endswith(f"put train-labels-idx1-ubyte.gz in {archives}")


def test_archives_put_in_the_cache_are_used(cache, empty_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "BUNDLED", tmp_path)
    archives = empty_cache / "archives" / "mnist"
    shutil.copytree(BUNDLED, archives)
    from_archives = load(MNIST)
    monkeypatch.setenv("VIBX_DATA_DIR", str(cache))
    for images, others in zip(from_archives[:2], load(MNIST)[:2], strict=True):
        np.testing.assert_array_equal(images.pixels, others.pixels)
        np.testing.assert_array_equal(images.labels, others.labels)
    flip_a_bit(archives / "t10k-labels-idx1-ubyte.gz")
    shutil.rmtree(empty_cache / "mnist")
    monkeypatch.setenv("VIBX_DATA_DIR", str(empty_cache))
    assert f"put unmodified archives in {archives}" in error_of(IDX, name="mnist")
