"""A researcher's own arrays: what is read, and what is said of a file that is no data set."""

import zipfile
from functools import partial

import numpy as np
import pytest

from tests.data.files import error_of, flip_a_bit
from vibx.choices import identity
from vibx.data import DataError, load, load_test
from vibx.data.schemas import Arrays

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "train_images": RANDOM.integers(0, 256, (24, 16, 12, 3), np.uint8),
    "train_labels": np.arange(24) % 4,
    "test_images": RANDOM.integers(0, 256, (8, 16, 12, 3), np.uint8),
    "test_labels": np.arange(8, dtype=np.uint8) % 3,
}
IMAGES, LABELS = ARRAYS["train_images"], ARRAYS["train_labels"]
arrays = partial(Arrays, "arrays")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "own.npz"


def save(file, **changes):
    """The arrays with changes; None leaves one out."""
    saved = {name: array for name, array in {**ARRAYS, **changes}.items() if array is not None}
    np.savez(file, **saved)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_they_are(file, save):
    save(file, **ARRAYS, not_ours=np.array([{}]))
    data = arrays(path=str(file))
    info = data.info
    assert (info.shape, info.classes) == ((16, 12, 3), 4)
    assert (info.train_images, info.test_images) == (24, 8)
    loaded = load(data)
    for images, split in ((loaded.train, "train"), (loaded.held_out, "test")):
        assert (images.pixels.dtype, images.labels.dtype) == (np.uint8, np.int32)
        assert images.pixels.shape[1:] == (info.pixels,)
        np.testing.assert_array_equal(
            images.pixels.reshape(-1, *info.shape), ARRAYS[f"{split}_images"]
        )
        np.testing.assert_array_equal(images.labels, ARRAYS[f"{split}_labels"])
    np.testing.assert_array_equal(load_test(data).pixels, loaded.held_out.pixels)


def test_order_in_memory_does_not_matter(file):
    save(file, train_images=np.asfortranarray(IMAGES))
    np.testing.assert_array_equal(
        load(arrays(path=str(file))).train.pixels, IMAGES.reshape(len(IMAGES), -1)
    )


def test_images_without_channels_have_one(file):
    save(file, train_images=IMAGES[..., 0], test_images=ARRAYS["test_images"][..., 0])
    data = arrays(path=str(file))
    assert data.info.shape == (16, 12, 1)
    np.testing.assert_array_equal(load(data).train.pixels, IMAGES[..., 0].reshape(24, -1))


def test_a_run_is_known_by_the_content_of_its_file_not_its_path(file, tmp_path, monkeypatch):
    save(file)
    data = arrays(path=str(file))
    copy = tmp_path / "copy.npz"
    copy.write_bytes(file.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert arrays(path="~/copy.npz").path == str(copy)
    assert arrays(path="~/copy.npz") == data
    assert identity(arrays(path="~/copy.npz")) == identity(data)
    assert "path" not in identity(data)
    save(copy, train_labels=(LABELS + 1) % 4)
    assert identity(arrays(path=str(copy))) != identity(data)


def test_a_relative_path_is_found_from_elsewhere(file, tmp_path, monkeypatch):
    save(file)
    monkeypatch.chdir(tmp_path)
    data = arrays(path="own.npz")
    monkeypatch.chdir("/")
    assert load(data).train.pixels.shape == (24, 576)


def test_a_record_is_parsed_where_its_file_is_gone(file):
    save(file)
    data = arrays(path=str(file))
    file.unlink()
    again = arrays(path=data.path, sha256=data.sha256)
    assert again == data
    remedy = f"put that with SHA-256 {data.sha256[:8]}... there, or a link to it"
    with pytest.raises(DataError, match=f"data.path={file}: No such file any more: {remedy}"):
        load(again)


def test_a_file_that_changed_is_refused(file):
    save(file)
    data = arrays(path=str(file))
    save(file, extra=LABELS)
    for read in (lambda: data.info, lambda: load(data), lambda: load_test(data)):
        with pytest.raises(DataError, match=f"{data.sha256[:8]}...: it has changed since"):
            read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": IMAGES / 255}, "train_images is float64: must be uint8, black 0 and"),
        ({"test_images": IMAGES[:8] > 9}, "test_images is bool: must be uint8"),
        ({"train_images": IMAGES.astype(object)}, "train_images is object: must be uint8"),
        ({"train_images": IMAGES.reshape(24, -1)}, "train_images is 24 x 576: must be n x height"),
        ({"train_images": (IMAGES > 9).astype(np.uint8)}, "train_images has no pixel above 1"),
        ({"test_images": IMAGES[:8, :9]}, "are 16 x 12 x 3 and test_images 9 x 12 x 3"),
        ({"test_images": IMAGES[:8, ..., 0]}, "are 16 x 12 x 3 and test_images 16 x 12: must"),
        (
            {"train_images": IMAGES[:0], "train_labels": LABELS[:0]},
            "train_images is empty: 0 x 16 x 12 x 3",
        ),
        (
            {"test_images": IMAGES[:0], "test_labels": LABELS[:0]},
            "test_images is empty: 0 x 16 x 12 x 3",
        ),
        ({"test_labels": None}, "no array named test_labels: it has train_images, train_labels, t"),
        ({"train_labels": np.where(LABELS, LABELS, np.nan)}, "train_labels is float64: must be in"),
        ({"train_labels": LABELS.astype(object)}, "train_labels is object: must be integers"),
        ({"train_labels": LABELS.astype(str)}, "train_labels is <U21: must be integers"),
        ({"train_labels": np.eye(4, dtype=int)[LABELS]}, "train_labels is 24 x 4: must be 24, one"),
        ({"train_labels": LABELS[:-1]}, "train_labels is 23: must be 24, one for each image"),
        ({"train_labels": np.array(3)}, "train_labels is one number: must be 24"),
        ({"train_labels": LABELS - 1}, "train_labels has -1: must be 0 for the first class"),
        ({"train_labels": LABELS + 1}, "train_labels has 4, and no 0: must be 0 to 3 for its 4 cl"),
        ({"train_labels": np.where(LABELS == 2, 9, LABELS)}, "train_labels has 9, and no 2: must"),
        ({"train_labels": 0 * LABELS}, "train_labels has one class only"),
        ({"test_labels": LABELS[:8] + 1}, "test_labels has 4, which is not in train_labels"),
        ({"test_labels": LABELS[:8] - 1}, "test_labels has -1, which is not in train_labels"),
    ],
)
def test_arrays_that_are_no_data_set(file, changes, message):
    save(file, **changes)
    said = error_of(arrays, path=str(file))
    assert said.startswith(f"data.path={file}: ")
    assert message in said


def test_an_entry_without_numpys_suffix_is_no_array(file):
    save(file, test_labels=None)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("test_labels", b"")
    assert "no array named test_labels: it has" in error_of(arrays, path=str(file))


def test_images_that_do_not_fit_are_refused_unread(file):
    shapes = {"train_images": (24, 8192, 8192), "test_images": (8, 8192, 8192)}
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in ARRAYS.items():
            with archive.open(f"{name}.npy", "w") as entry:  # headers, and no array after them
                header = {"shape": shapes.get(name, array.shape), "fortran_order": False}
                np.lib.format.write_array_header_1_0(entry, header | {"descr": array.dtype.str})
    assert "2.0 GiB of pixels: at most 1 GiB" in error_of(arrays, path=str(file))


def test_a_damaged_file(file):
    save(file)
    whole = file.read_bytes()
    for name in ("train_images", "test_labels"):
        header = len(f"{name}.npy") + 20 + 128  # of the entry and of its array
        flip_a_bit(file, at=whole.index(f"{name}.npy".encode()) + header)
        assert f"the file is corrupted (Bad CRC-32 for file '{name}.npy')" in error_of(
            arrays, path=str(file)
        )
        file.write_bytes(whole)
    file.write_bytes(whole[:-100])
    assert "not a whole .npz file" in error_of(arrays, path=str(file))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train_images.npy", b"text")
        for name in ("train_labels", "test_images", "test_labels"):
            archive.writestr(f"{name}.npy", b"")
    assert "the file is corrupted" in error_of(arrays, path=str(file))


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY"])
def test_another_kind_of_file(file, content):
    file.write_bytes(content)
    assert "is not a whole .npz file: numpy.savez writes one" in error_of(arrays, path=str(file))


def test_no_file(tmp_path):
    assert error_of(arrays, path="") == "path=: must be the .npz file with the arrays"
    assert error_of(arrays, path=str(tmp_path)) == f"data.path={tmp_path}: is not a file"
    assert error_of(arrays, path=f"{tmp_path}/x.npz").endswith("x.npz: No such file or directory")
