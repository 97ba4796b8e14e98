"""A researcher's own arrays, from an `.npz` file; a line says what is wrong with it.

`train_images` and `test_images` are uint8[n, h, w] or uint8[n, h, w, c], `train_labels` and
`test_labels` integers [n]. Classes are 0, 1, ... without a gap, each with an image to train on:
a class that is not there would count in every bound on the information about the class.
"""

import contextlib
import functools
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vibx import files
from vibx.data.images import DataError, DataInfo, Images, Splits, by, require_room

NAMES = ("train_images", "train_labels", "test_images", "test_labels")


class Header(NamedTuple):
    """What a `.npy` file says about its array before its values."""

    shape: tuple[int, ...]
    dtype: np.dtype


def sha256(path: str) -> str:
    """The SHA-256 of the file, in hex digits.

    Raises:
        DataError: it cannot be read.
    """
    with problems_named(path):
        return digest_of_version(path, version_of(path))


def describe(path: str, *, sha256: str) -> DataInfo:
    """Shapes from the headers and classes from the labels; no image is read.

    Raises:
        DataError: the file differs from its digest, cannot be read, or is no such data set.
    """
    with problems_named(path):
        require_unchanged(path, sha256)
        return info_of_version(path, version_of(path))


def read(path: str, *, sha256: str) -> Splits:
    """All images.

    Raises:
        DataError: as `describe`; or pixels that are not scaled to 0..255.
    """
    info = describe(path, sha256=sha256)
    with problems_named(path), np.load(path, allow_pickle=False) as arrays:
        train_images, train_labels, test_images, test_labels = (arrays[name] for name in NAMES)
        if train_images.max() <= 1:
            raise DataError("train_images has no pixel above 1: black is 0 and white 255")
    return Splits(
        Images(train_images.reshape(-1, info.pixels), train_labels.astype(np.int32)),
        Images(test_images.reshape(-1, info.pixels), test_labels.astype(np.int32)),
    )


@contextlib.contextmanager
def problems_named(path: str) -> Iterator[None]:
    """Turn every problem with the file into one line that names it."""
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise DataError("is not a file")
        yield
    except DataError as error:
        raise DataError(f"data.path={path}: {error}") from None
    except OSError as error:
        raise DataError(f"data.path={path}: {error.strerror or error}") from error
    except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        problem = str(error).splitlines()[0]
        raise DataError(f"data.path={path}: the file is corrupted ({problem})") from error


def require_unchanged(path: str, sha256: str) -> None:
    """Refuse a file that is not the one whose digest a run has."""
    if not Path(path).exists():
        raise DataError(
            f"No such file any more: put that with SHA-256 {sha256[:8]}... there, or a link to it"
        )
    found = digest_of_version(path, version_of(path))
    if found != sha256:
        raise DataError(
            f"the file's SHA-256 is {found[:8]}..., not {sha256[:8]}...: it has changed since"
        )


def version_of(path: str) -> tuple[int, int, int]:
    """What changes when a file is written again."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=8)  # the runs of a sweep share it
def digest_of_version(path: str, version: tuple[int, int, int]) -> str:
    """The SHA-256 of one version of a file."""
    return files.sha256(Path(path))


@functools.lru_cache(maxsize=8)
def info_of_version(path: str, version: tuple[int, int, int]) -> DataInfo:
    """The description of one version of a file, whose headers and labels are checked."""
    if not zipfile.is_zipfile(path):
        raise DataError("is not a whole .npz file: numpy.savez writes one")
    with zipfile.ZipFile(path) as archive:
        train, train_labels, test, test_labels = (header(archive, name) for name in NAMES)
        check_images("train_images", train)
        check_images("test_images", test)
        check_labels("train_labels", train_labels, images=train.shape[0])
        check_labels("test_labels", test_labels, images=test.shape[0])
        if train.shape[1:] != test.shape[1:]:
            raise DataError(
                f"train_images are {by(train.shape[1:])} and test_images {by(test.shape[1:])}: "
                "must be of one size"
            )
        require_room(int(np.prod(train.shape, dtype=object) + np.prod(test.shape, dtype=object)))
        classes = count_classes(*(read_labels(archive, name) for name in NAMES[1::2]))
    height, width, channels = (*train.shape[1:], 1)[:3]
    return DataInfo(
        shape=(height, width, channels),
        classes=classes,
        train_images=train.shape[0],
        test_images=test.shape[0],
        source=path,
    )


def header(archive: zipfile.ZipFile, name: str) -> Header:
    """The header of an array."""
    entries = archive.namelist()
    if f"{name}.npy" not in entries:
        names = [entry.removesuffix(".npy") for entry in entries if entry.endswith(".npy")]
        there = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise DataError(f"no array named {name}: it has {there or 'none'}")
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return Header(shape, dtype)


def check_images(name: str, images: Header) -> None:
    """Refuse images of another type or shape."""
    if images.dtype != np.uint8:
        raise DataError(f"{name} is {images.dtype}: must be uint8, black 0 and white 255")
    if len(images.shape) not in (3, 4):
        raise DataError(
            f"{name} is {by(images.shape)}: must be n x height x width, or n x height x width x "
            "channels"
        )
    if 0 in images.shape:
        raise DataError(f"{name} is empty: {by(images.shape)}")


def check_labels(name: str, labels: Header, *, images: int) -> None:
    """Refuse labels of another type or number."""
    if labels.dtype.kind not in "iu":
        raise DataError(f"{name} is {labels.dtype}: must be integers, 0 for the first class")
    if labels.shape != (images,):
        raise DataError(
            f"{name} is {by(labels.shape) or 'one number'}: must be {images}, one for each image"
        )


def read_labels(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """All labels of a split."""
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def count_classes(train_labels: np.ndarray, test_labels: np.ndarray) -> int:
    """The number of classes; refuses labels that are no classes."""
    present = np.unique(train_labels)
    classes = len(present)
    absent = np.flatnonzero(present != np.arange(classes))
    if present[0] < 0:
        raise DataError(f"train_labels has {present[0]}: must be 0 for the first class")
    if absent.size:
        raise DataError(
            f"train_labels has {present[-1]}, and no {absent[0]}: must be 0 to {classes - 1} for "
            f"its {classes} classes (numpy.unique(labels, return_inverse=True)[1])"
        )
    if classes < 2:
        raise DataError("train_labels has one class only: there is nothing to tell apart")
    for label in (test_labels.min(), test_labels.max()):
        if not 0 <= label < classes:
            raise DataError(
                f"test_labels has {label}, which is not in train_labels: must be 0 to {classes - 1}"
            )
    return classes
