"""MNIST and the sets in its format, in the order of their files.

TFDS says where the archives are, and checks each against its own checksums. Those of MNIST come
with this package, so that it needs no network. TFDS's own preparation would need TensorFlow, and
shuffles. It takes a second to import, so only preparing imports it.
"""

import functools
import gzip
import logging
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from vibx.data import cache
from vibx.data.images import ARRAYS, DataError, DataInfo, Splits, splits_from
from vibx.data.tfds import quiet_absl

logger = logging.getLogger(__name__)

SETS = {
    "mnist": DataInfo(
        (28, 28, 1), 10, 60_000, 10_000, "LeCun and Cortes, yann.lecun.com/exdb/mnist"
    ),
    "fashion_mnist": DataInfo(
        (28, 28, 1), 10, 60_000, 10_000, "Xiao et al. 2017, arXiv:1708.07747"
    ),
    "kmnist": DataInfo((28, 28, 1), 10, 60_000, 10_000, "Clanuwat et al. 2018, arXiv:1812.01718"),
}
ARCHIVES = {
    "train_pixels": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_pixels": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
BUNDLED = Path(__file__).parent
PROBE_SECONDS = 5.0


def read_set(name: str) -> Splits:
    """Read a data set of `SETS` from the cache.

    Raises:
        DataError: archives are missing or corrupted, or the cache directory cannot be used.
    """
    return splits_from(cache.cached(name, ARRAYS, functools.partial(prepare, name)))


def prepare(name: str, directory: Path) -> cache.Arrays:
    """Read the archives of a data set, which TFDS downloads to `directory` and verifies."""
    logger.info("preparing %s (once)", name)
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    bundled = BUNDLED / name
    archives = bundled if bundled.is_dir() else cache.directory() / "archives" / name
    stock: Any = tfds.builder_cls(name)
    require_archives(name, archives, url=stock.URL)
    manager = tfds.download.DownloadManager(
        download_dir=directory,
        manual_dir=archives,
        url_infos=stock.url_infos,
        force_checksums_validation=True,
    )
    tfds.disable_progress_bar()
    try:
        with quiet_absl():
            paths = manager.download({array: stock.URL + file for array, file in ARCHIVES.items()})
    except (NonMatchingChecksumError, tfds.download.DownloadError) as error:
        problem = str(error).splitlines()[0].rstrip(":.")
        raise DataError(f"{name}: {problem}; put unmodified archives in {archives}") from error
    arrays = {array: read_idx(path) for array, path in paths.items()}
    return {
        array: values.astype(np.int32) if values.ndim == 1 else values.reshape(len(values), -1)
        for array, values in arrays.items()
    }


def require_archives(name: str, archives: Path, *, url: str) -> None:
    """Fail at once where TFDS would try for minutes to download what is missing."""
    missing = [file for file in ARCHIVES.values() if not (archives / file).exists()]
    if not missing:
        return
    probe = urllib.request.Request(url + missing[0], method="HEAD")
    try:
        urllib.request.urlopen(probe, timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise DataError(
            f"{name}: cannot download from {url} ({error}); put {', '.join(missing)} in {archives}"
        ) from error


def read_idx(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file."""
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
