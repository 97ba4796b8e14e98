"""The cache of decoded arrays: whole, checked, prepared once."""

import os
import threading

import numpy as np
import pytest

from tests.data.files import flip_a_bit
from vibx.data import DataError
from vibx.data.cache import cached

ARRAYS = {"a": np.arange(500), "b": np.eye(30, dtype=np.uint8), "c": np.array("test")}


class Preparation:
    """Prepares `ARRAYS` and counts how often."""

    def __init__(self):
        self.count = 0

    def __call__(self, directory):
        self.count += 1
        assert not os.listdir(directory)
        (directory / "left behind").touch()
        return ARRAYS


@pytest.fixture
def prepare():
    return Preparation()


def assert_all(arrays):
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.dtype == ARRAYS[name].dtype


def test_prepared_once_and_then_read(empty_cache, prepare):
    for _ in range(2):
        assert_all(cached("set", tuple(ARRAYS), prepare))
    assert list(cached("set", ["b"], prepare)) == ["b"]
    assert prepare.count == 1
    assert sorted(os.listdir(empty_cache)) == ["set", "set.lock"]
    assert sorted(os.listdir(empty_cache / "set")) == ["SHA256SUMS", "a.npy", "b.npy", "c.npy"]


@pytest.mark.parametrize("file", ["a.npy", "b.npy", "SHA256SUMS"])
def test_damage_is_named_and_repaired(empty_cache, prepare, caplog, file):
    cached("set", tuple(ARRAYS), prepare)
    good = (empty_cache / "set" / file).read_bytes()
    flip_a_bit(empty_cache / "set" / file)

    assert_all(cached("set", tuple(ARRAYS), prepare))

    [warning] = [record.getMessage() for record in caplog.records]
    assert str(empty_cache / "set") in warning
    assert file in warning
    assert (empty_cache / "set" / file).read_bytes() == good
    caplog.clear()
    assert_all(cached("set", tuple(ARRAYS), prepare))
    assert not caplog.records
    assert prepare.count == 2


def test_a_missing_file_is_prepared_again(empty_cache, prepare):
    cached("set", tuple(ARRAYS), prepare)
    (empty_cache / "set" / "b.npy").unlink()
    assert_all(cached("set", tuple(ARRAYS), prepare))


def test_what_a_killed_process_left_is_replaced(empty_cache, prepare):
    (empty_cache / "set.partial" / "work").mkdir(parents=True)
    assert_all(cached("set", tuple(ARRAYS), prepare))
    assert sorted(os.listdir(empty_cache)) == ["set", "set.lock"]


def test_those_that_ask_at_once_wait_for_one(empty_cache, prepare):
    threads = [threading.Thread(target=cached, args=("set", ["a"], prepare)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert prepare.count == 1


def test_a_failed_preparation_leaves_nothing(empty_cache):
    def fail(directory):
        (directory / "half").touch()
        raise OSError("disk full")

    with pytest.raises(DataError, match=f"cannot prepare set in {empty_cache}: disk full"):
        cached("set", ["a"], fail)
    assert os.listdir(empty_cache) == ["set.lock"]


def test_unusable_cache_directory(tmp_path, monkeypatch, prepare):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIBX_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match=str(tmp_path / "file")):
        cached("set", ["a"], prepare)
