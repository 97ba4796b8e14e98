"""Image classification sets that TensorFlow Datasets has prepared, read without TensorFlow.

To prepare most of its own sets TFDS needs TensorFlow: `tfds build <name>` does it where that is
installed, on any machine. What it leaves, as array_record or as tfrecord, is found in TFDS's
directory (`TFDS_DATA_DIR`, or ~/tensorflow_datasets) and in `tfds/` of the cache directory.

TFDS takes a second to import, so only preparing and decoding import it.
"""

import contextlib
import functools
import hashlib
import itertools
import logging
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vibx.data import cache
from vibx.data.images import (
    ARRAYS,
    DataError,
    DataInfo,
    Images,
    Splits,
    by,
    require_room,
    splits_from,
)

logger = logging.getLogger(__name__)

REFERENCE = re.compile(r"(?P<name>\w+(?:/[\w.-]+)?)(?::(?P<version>\d+\.\d+\.\d+))?")
VERSION = re.compile(r"\d+\.\d+\.\d+")
INFO_FILE = "dataset_info.json"
DESCRIPTION = ("image_shape", "classes", "test_split", "train_labels", "test_labels")
TRAIN_SPLIT, TEST_SPLITS = "train", ("test", "validation")


def pinned(reference: str) -> tuple[str, str]:
    """Name and version of the prepared set that is meant.

    Args:
        reference: `name` or `name/configuration`, and perhaps `:version`. Without a version, the
            newest that is prepared; without a configuration, the only one.

    Raises:
        DataError: no such set is prepared, or several configurations are.
    """
    parts = REFERENCE.fullmatch(reference)
    if not parts:
        raise DataError(f"data.dataset={reference}: must be a name, as cifar10 or cifar10:3.0.2")
    prepared = {
        path.parent.relative_to(root)
        for root in directories()
        for depth in ("*", "*/*")
        for path in (root / parts["name"]).glob(f"{depth}/{INFO_FILE}")
        if VERSION.fullmatch(path.parent.name)
    }
    found = [path for path in prepared if parts["version"] in (None, path.name)]
    names = sorted({path.parent.as_posix() for path in found})
    if not names:
        raise DataError(not_prepared(reference))
    if len(names) > 1:
        raise DataError(f"data.dataset={reference}: must be one of {', '.join(names)}")
    return names[0], max((path.name for path in found), key=components)


def components(version: str) -> list[int]:
    """A version, to be compared."""
    return [int(number) for number in version.split(".")]


def describe(dataset: str, version: str) -> DataInfo:
    """The description of a prepared set, which is decoded first where it is not yet.

    Raises:
        DataError: as `read`.
    """
    arrays = decoded(dataset, version, DESCRIPTION)
    height, width, channels = map(int, arrays["image_shape"])
    split = str(arrays["test_split"])
    note = "" if split == "test" else f", split {split} as the test set"
    return DataInfo(
        shape=(height, width, channels),
        classes=int(arrays["classes"]),
        train_images=len(arrays["train_labels"]),
        test_images=len(arrays["test_labels"]),
        source=f"TFDS {dataset}:{version}{note}",
    )


def read(dataset: str, version: str) -> Splits:
    """All images, in the order of TFDS.

    Raises:
        DataError: it is not prepared, is no image classification set of one size, or is damaged.
    """
    return splits_from(decoded(dataset, version, ARRAYS))


def directories() -> list[Path]:
    """Where prepared sets are looked for, in this order."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return [cache.directory() / "tfds", Path(default).expanduser()]


def not_prepared(reference: str) -> str:
    """What is missing, and what to do."""
    ours, default = directories()
    return (
        f"data.dataset={reference}: not prepared in {ours} or {default}: run `tfds build "
        f"{reference.split(':')[0]}` where TensorFlow is installed, and put what it made there"
    )


def decoded(dataset: str, version: str, names: Sequence[str]) -> cache.Arrays:
    """Arrays of a prepared set, by way of the cache."""
    reference = f"{dataset}:{version}"
    candidates = [root / dataset / version for root in directories()]
    directory = next((path for path in candidates if (path / INFO_FILE).is_file()), None)
    if directory is None:
        raise DataError(not_prepared(reference))
    files = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in directory.iterdir())
    made = hashlib.sha256(repr(files).encode()).hexdigest()[:8]  # others if it is prepared again
    entry = f"{dataset.replace('/', '-')}-{version}-{made}"
    return cache.cached(entry, names, functools.partial(decode_directory, directory, reference))


def decode_directory(directory: Path, reference: str, _: Path) -> cache.Arrays:
    """Decode what TFDS prepared in a directory."""
    logger.info("preparing %s (once)", reference)
    import tensorflow_datasets as tfds

    try:
        with quiet_absl():
            return decode(tfds.builder_from_directory(directory).info)
    except DataError as error:
        raise DataError(f"data.dataset={reference}: {error}") from None
    except Exception as error:  # damaged files make TFDS, protobuf and PIL raise anything
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"data.dataset={reference}: {directory} is damaged ({problem})") from error


def decode(info: Any) -> cache.Arrays:
    """Decode the train and test split of a prepared set.

    Args:
        info: Its `tfds.core.DatasetInfo`.

    Returns:
        `ARRAYS`, and those of `DESCRIPTION`.

    Raises:
        DataError: it is no image classification set of one size, or is damaged.
    """
    import tensorflow_datasets as tfds

    names = image_and_label(info)
    features = tfds.features.FeaturesDict({name: info.features[name] for name in names})
    image, label = (features[name] for name in names)
    test_split = next((split for split in TEST_SPLITS if split in info.splits), None)
    if TRAIN_SPLIT not in info.splits or test_split is None:
        raise DataError(
            f"has the splits {', '.join(info.splits)}: must have train, and test or validation; "
            "data=arrays takes a split of your own"
        )
    counts = {split: info.splits[split].num_examples for split in (TRAIN_SPLIT, test_split)}
    require_room(sum(counts.values()) * int(np.prod(image.shape, dtype=object)))
    splits = []
    for split, count in counts.items():
        examples = map(features.deserialize_example_np, records(info, split))
        pairs = ((example[names[0]], example[names[1]]) for example in examples)
        splits.append(as_images(pairs, count, shape=image.shape, classes=label.num_classes))
    return dict(zip(ARRAYS, itertools.chain(*splits), strict=True)) | {
        "image_shape": np.array(image.shape),
        "classes": np.array(label.num_classes),
        "test_split": np.array(test_split),
    }


def image_and_label(info: Any) -> tuple[str, str]:
    """Names of the features that are the image and its class."""
    import tensorflow_datasets as tfds

    features = dict(info.features.items())  # a FeaturesDict is a mapping, and no Mapping
    keys = info.supervised_keys
    image, label = keys if keys and len(keys) == 2 else ("image", "label")
    if not (
        isinstance(features.get(image), tfds.features.Image)
        and isinstance(features.get(label), tfds.features.ClassLabel)
    ):
        raise DataError(f"has {', '.join(sorted(features))}: must have an image and its class")
    shape, dtype = features[image].shape, features[image].np_dtype
    if None in shape or dtype != np.uint8:
        raise DataError(
            f"its images are {np.dtype(dtype)} of {by(n or 'any' for n in shape)}: must be uint8 "
            "of one size"
        )
    return image, label


def as_images(
    pairs: Iterable[tuple[np.ndarray, int]], count: int, *, shape: tuple[int, ...], classes: int
) -> Images:
    """A split as arrays."""
    images = Images(np.empty((count, int(np.prod(shape))), np.uint8), np.empty(count, np.int32))
    index = 0
    for index, (image, label) in enumerate(pairs, 1):
        if index > count or image.shape != shape or not 0 <= label < classes:
            raise DataError(
                f"example {index} of {count} is {by(image.shape)} and of class {label}: must be "
                f"{by(shape)} and of a class from 0 to {classes - 1}"
            )
        images.pixels[index - 1], images.labels[index - 1] = image.ravel(), label
    if index < count:
        raise DataError(f"has {index} of {count} examples: its files are damaged")
    return images


def records(info: Any, split: str) -> Iterator[bytes]:
    """The serialised examples of a split."""
    readers = {"array_record": array_records, "tfrecord": tfrecords}
    file_format = info.file_format.value
    if file_format not in readers:
        raise DataError(f"is prepared as {file_format}: must be array_record or tfrecord")
    for path in info.splits[split].filepaths:
        yield from readers[file_format](Path(path))


def array_records(path: Path) -> Iterator[bytes]:
    """The records of an array_record file."""
    from array_record.python.array_record_module import ArrayRecordReader

    with contextlib.closing(ArrayRecordReader(str(path))) as reader:
        yield from reader.read_all()


def tfrecords(path: Path) -> Iterator[bytes]:
    """The records of a tfrecord file: each after its length and followed by a checksum.

    The checksums, CRC-32C, are not looked at: what is damaged shows, if at all, when it is decoded.
    """
    with path.open("rb") as file:
        while prefix := file.read(12):
            record = file.read(struct.unpack("<Qxxxx", prefix)[0])
            yield record
            file.seek(4, os.SEEK_CUR)


@contextlib.contextmanager
def quiet_absl() -> Iterator[None]:
    """Keep TFDS's own log to its errors."""
    absl_logger = logging.getLogger("absl")
    level = absl_logger.level
    absl_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        absl_logger.setLevel(level)
