"""Image data sets: TensorFlow Datasets (without TensorFlow) -> uint8 arrays, scaling, epochs.

TFDS checks every archive against its own checksums and prepares the data set once; the decoded
arrays then stay as `.npy` files in the user's cache directory, which `VIBX_DATA_DIR` moves. The
archives of MNIST come with this package, so that it needs no network.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import logging
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import platformdirs

from vibx.errors import UserError

logger = logging.getLogger(__name__)

NAMES = ("mnist", "fashion_mnist", "kmnist")

_BUNDLED = {"mnist": Path(__file__).with_name("mnist")}
_ARCHIVES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_PROBE_SECONDS = 5.0
_SUMS = "SHA256SUMS"


class DataError(UserError):
    """What is wrong with the data, or with what was asked of it, and what to do: one line."""


class Images(NamedTuple):
    """Images and their labels.

    Attributes:
        pixels: uint8[n, 784], from 0 to 255, row by row.
        labels: int32[n], from 0 to 9.
    """

    pixels: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array


class Dataset(NamedTuple):
    """Images to train on, and images to evaluate on.

    Attributes:
        train: The training images, less the validation split.
        held_out: The test set, or the validation split when one was asked for.
        held_out_name: "test" or "validation".
    """

    train: Images
    held_out: Images
    held_out_name: str


def load(
    name: str,
    *,
    validation: int = 0,
    train_images: int | None = None,
    held_out_images: int | None = None,
) -> Dataset:
    """Loads a data set as numpy arrays, in the order of its original files.

    Args:
        name: One of `NAMES`.
        validation: Holds out the last so many training images in place of the test set.
        train_images: Keeps the first so many training images, after that split.
        held_out_images: Keeps the first so many held-out images, after that split.

    Raises:
        DataError: Unknown name, impossible size, archives that are missing or corrupted, or a
            cache directory that cannot be used.
    """
    if name not in NAMES:
        raise DataError(f"unknown data set {name!r}: choose one of {', '.join(NAMES)}")
    splits = _cached_splits(name)
    train, held_out, held_out_name = splits["train"], splits["test"], "test"
    _check_size("validation", validation, least=0, most=len(train.labels) - 1)
    if validation:
        train, held_out = _slice(train, slice(-validation)), _slice(train, slice(-validation, None))
        held_out_name = "validation"
    return Dataset(
        train=_first("train_images", train_images, train),
        held_out=_first("held_out_images", held_out_images, held_out),
        held_out_name=held_out_name,
    )


def scale(pixels: np.ndarray | jax.Array) -> jax.Array:
    """Scales uint8 pixels of any shape to float32 in [-1, 1]: x / 127.5 - 1."""
    # Subtracted first: a compiler fuses x / 127.5 - 1 into one rounding, which can exceed 1.
    return (jnp.asarray(pixels, jnp.float32) - 127.5) / 127.5


def epoch_order(key: jax.Array, *, n: int, batch_size: int) -> jax.Array:
    """Draws the batches of one epoch: a random permutation of n images, cut into full batches.

    Args:
        key: Random key of this epoch.
        n: Number of images; static.
        batch_size: Images in a batch; static. The last n % batch_size images are left out.

    Returns:
        int32[n // batch_size, batch_size], the indices of each batch's images.

    Raises:
        DataError: There is not one full batch.
    """
    _check_size("batch_size", batch_size, least=1, most=n)
    steps = n // batch_size
    order = jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32))
    return order[: steps * batch_size].reshape(steps, batch_size)


def _check_size(name: str, value: int, *, least: int, most: int) -> None:
    if not least <= value <= most:
        raise DataError(f"{name}={value}: must be from {least} to {most}")


def _first(name: str, count: int | None, images: Images) -> Images:
    if count is None:
        return images
    _check_size(name, count, least=1, most=len(images.labels))
    return _slice(images, slice(count))


def _slice(images: Images, part: slice) -> Images:
    return Images(images.pixels[part], images.labels[part])


# The cache: <cache>/<name>/{train,test}_{pixels,labels}.npy and their digests, renamed into place
# as one directory, so that it is there whole or not at all.


class _DamagedCacheError(Exception):
    """A cached file is not what was written."""


def _cached_splits(name: str) -> dict[str, Images]:
    cache = Path(os.environ.get("VIBX_DATA_DIR") or platformdirs.user_cache_path("vibx"))
    try:
        with contextlib.suppress(FileNotFoundError, _DamagedCacheError):
            return _read(cache / name)
        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / f"{name}.lock"):  # TFDS cannot prepare twice at once
            return _read_or_build(name, cache)
    except (OSError, RuntimeError) as error:  # array_record: RuntimeError for a full disk
        raise DataError(f"cannot prepare {name} in {cache}: {error}") from error


def _read_or_build(name: str, cache: Path) -> dict[str, Images]:
    try:
        return _read(cache / name)  # another process may have built it while this one waited
    except FileNotFoundError:
        pass
    except _DamagedCacheError as damage:
        logger.warning("%s; building it again", damage)
    return _build(name, cache)


def _build(name: str, cache: Path) -> dict[str, Images]:
    logger.info("preparing %s (once, about 20 s)", name)
    work = cache / f"{name}.partial"
    shutil.rmtree(work, ignore_errors=True)  # a killed process may have left one
    try:
        splits = _prepare(name, _BUNDLED.get(name, cache / "archives" / name), work / "tfds")
        _write(work / name, splits)
        shutil.rmtree(cache / name, ignore_errors=True)
        (work / name).rename(cache / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return splits


def _read(directory: Path) -> dict[str, Images]:
    sums = (directory / _SUMS).read_text("ascii", errors="replace").split("\n")
    files = _array_files(directory)
    for path in files["train"] + files["test"]:
        if _sum_line(path) not in sums:
            raise _DamagedCacheError(f"{path} does not match its checksum in {_SUMS}")
    return {split: Images(*map(np.load, paths)) for split, paths in files.items()}


def _write(directory: Path, splits: dict[str, Images]) -> None:
    directory.mkdir(parents=True)
    files = _array_files(directory)
    for split, paths in files.items():
        for path, array in zip(paths, splits[split], strict=True):
            np.save(path, array)
    sums = "\n".join(map(_sum_line, files["train"] + files["test"]))
    (directory / _SUMS).write_text(f"{sums}\n", "ascii")


def _array_files(directory: Path) -> dict[str, list[Path]]:
    return {s: [directory / f"{s}_{field}.npy" for field in Images._fields] for s in _ARCHIVES}


def _sum_line(path: Path) -> str:
    """As sha256sum writes it."""
    with path.open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}"


# TensorFlow Datasets. Its import takes a second, so it happens only where the cache is built.


def _prepare(name: str, archives: Path, directory: Path) -> dict[str, Images]:
    """Prepares a data set in `directory` with TFDS, from its archives, and decodes it."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    builder = _builder(name, directory)
    _require(name, archives, builder.URL)
    config = tfds.download.DownloadConfig(
        manual_dir=archives, try_download_gcs=False, force_checksums_validation=True
    )
    tfds.disable_progress_bar()
    try:
        with _quiet_absl(), contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=directory, download_config=config)
            return {split: _decode(builder.as_data_source(split)) for split in _ARCHIVES}
    except (NonMatchingChecksumError, tfds.download.DownloadError) as error:
        problem = str(error).splitlines()[0].rstrip(":.")
        raise DataError(f"{name}: {problem}; put unmodified archives in {archives}") from error


def _builder(name: str, directory: Path) -> Any:
    """TFDS's own builder, made to read the archives without TensorFlow and to keep their order."""
    import PIL.Image
    import tensorflow_datasets as tfds

    stock: Any = tfds.builder_cls(name)

    class Builder(stock, skip_registration=True):  # type: ignore[call-arg]
        name = stock.name
        VERSION = stock.VERSION

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self, features=super()._info().features, disable_shuffling=True
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            urls = {s: [self.URL + file for file in files] for s, files in _ARCHIVES.items()}
            paths = dl_manager.download(urls)
            return {split: self._generate_examples(*paths[split]) for split in _ARCHIVES}

        def _generate_examples(self, images: Path, labels: Path) -> Iterator[Any]:
            pairs = zip(_read_idx(images), _read_idx(labels), strict=True)
            for index, (image, label) in enumerate(pairs):
                yield index, {"image": PIL.Image.fromarray(image), "label": int(label)}

    return Builder(data_dir=directory, file_format="array_record")


def _require(name: str, archives: Path, url: str) -> None:
    """Fails at once where TFDS would try for minutes to download what is missing."""
    missing = [f for files in _ARCHIVES.values() for f in files if not (archives / f).exists()]
    if not missing:
        return
    probe = urllib.request.Request(url + missing[0], method="HEAD")
    try:
        urllib.request.urlopen(probe, timeout=_PROBE_SECONDS).close()
    except OSError as error:
        raise DataError(
            f"{name}: cannot download from {url} ({error}); put {', '.join(missing)} in {archives}"
        ) from error


@contextlib.contextmanager
def _quiet_absl() -> Iterator[None]:
    absl_logger = logging.getLogger("absl")
    level = absl_logger.level
    absl_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        absl_logger.setLevel(level)


def _read_idx(path: Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes())
    dimensions = data[3]
    shape = np.frombuffer(data, ">i4", dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _decode(examples: Any) -> Images:
    pixels = np.empty((len(examples), 784), np.uint8)
    labels = np.empty(len(examples), np.int32)
    for index, example in enumerate(examples):
        pixels[index], labels[index] = example["image"].ravel(), example["label"]
    return Images(pixels, labels)
