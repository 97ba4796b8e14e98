"""MNIST and the sets in its format, in the order of their files, through TFDS without TensorFlow.

TFDS checks every archive against its own checksums. The archives of MNIST come with this package,
so that it needs no network. TFDS takes a second to import, so only preparing imports it.
"""

import contextlib
import functools
import gzip
import io
import logging
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vibx.data import cache
from vibx.data.images import ARRAYS, DataError, DataInfo, Splits, splits_from
from vibx.data.tfds import decode, quiet_absl

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
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
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
    """Prepare a data set in `directory` with TFDS, from its archives, and decode it."""
    logger.info("preparing %s (once, about 20 s)", name)
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    bundled = BUNDLED / name
    archives = bundled if bundled.is_dir() else cache.directory() / "archives" / name
    builder = idx_builder(name, directory)
    require_archives(name, archives, url=builder.URL)
    config = tfds.download.DownloadConfig(
        manual_dir=archives, try_download_gcs=False, force_checksums_validation=True
    )
    tfds.disable_progress_bar()
    try:
        with quiet_absl(), contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=directory, download_config=config)
            return decode(builder.info)
    except (NonMatchingChecksumError, tfds.download.DownloadError) as error:
        problem = str(error).splitlines()[0].rstrip(":.")
        raise DataError(f"{name}: {problem}; put unmodified archives in {archives}") from error


def idx_builder(name: str, directory: Path) -> Any:
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
            urls = {s: [self.URL + file for file in files] for s, files in ARCHIVES.items()}
            paths = dl_manager.download(urls)
            return {split: self._generate_examples(*paths[split]) for split in ARCHIVES}

        def _generate_examples(self, images: Path, labels: Path) -> Iterator[Any]:
            pairs = zip(read_idx(images), read_idx(labels), strict=True)
            for index, (image, label) in enumerate(pairs):
                yield index, {"image": PIL.Image.fromarray(image), "label": int(label)}

    return Builder(data_dir=directory, file_format="array_record")


def require_archives(name: str, archives: Path, *, url: str) -> None:
    """Fail at once where TFDS would try for minutes to download what is missing."""
    missing = [f for files in ARCHIVES.values() for f in files if not (archives / f).exists()]
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
