"""Decoded data sets in the user's cache directory, which `VIBX_DATA_DIR` moves.

<cache>/<entry>/<array>.npy and the digests of these files, renamed into place as one directory, so
that an entry is there whole or not at all.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import filelock
import numpy as np
import platformdirs

from vibx.data.images import DataError
from vibx.files import sha256

logger = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
SUMS = "SHA256SUMS"


class DamagedEntryError(Exception):
    """A cached file is not what was stored."""


def directory() -> Path:
    """The cache directory."""
    return Path(os.environ.get("VIBX_DATA_DIR") or platformdirs.user_cache_path("vibx"))


def cached(entry: str, names: Sequence[str], prepare: Callable[[Path], Arrays]) -> Arrays:
    """Read arrays of an entry, which is prepared first where it is missing or damaged.

    Args:
        entry: A directory's name.
        names: Those of the entry's arrays that are wanted.
        prepare: Gives all arrays of the entry; its argument is an empty directory
            to work in.

    Raises:
        DataError: the cache directory cannot be used.
    """
    cache = directory()
    try:
        with contextlib.suppress(FileNotFoundError, DamagedEntryError):
            return read(cache / entry, names)
        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / f"{entry}.lock"):  # TFDS cannot prepare twice at once
            return read_or_store(cache / entry, names, prepare)
    except (OSError, RuntimeError) as error:  # array_record: RuntimeError for a full disk
        raise DataError(f"cannot prepare {entry} in {cache}: {error}") from error


def read_or_store(entry: Path, names: Sequence[str], prepare: Callable[[Path], Arrays]) -> Arrays:
    """As `cached`, while no other process prepares this entry."""
    try:
        return read(entry, names)  # another process may have prepared it while this one waited
    except FileNotFoundError:
        pass
    except DamagedEntryError as damage:
        logger.warning("%s; preparing it again", damage)
    work = entry.with_name(f"{entry.name}.partial")
    shutil.rmtree(work, ignore_errors=True)  # a killed process may have left one
    try:
        (work / "preparation").mkdir(parents=True)
        arrays = prepare(work / "preparation")
        store(work / entry.name, arrays)
        shutil.rmtree(entry, ignore_errors=True)
        (work / entry.name).rename(entry)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {name: arrays[name] for name in names}


def read(entry: Path, names: Sequence[str]) -> Arrays:
    """Read arrays of an entry.

    Raises:
        FileNotFoundError: it is not there.
        DamagedEntryError: a file differs from its digest.
    """
    sums = (entry / SUMS).read_text("ascii", errors="replace").split("\n")
    paths = {name: entry / f"{name}.npy" for name in names}
    for path in paths.values():
        if sum_line(path) not in sums:
            raise DamagedEntryError(f"{path} does not match its checksum in {SUMS}")
    return {name: np.load(path) for name, path in paths.items()}


def store(entry: Path, arrays: Arrays) -> None:
    """Store the arrays of an entry and their digests."""
    entry.mkdir(parents=True)
    paths = [entry / f"{name}.npy" for name in arrays]
    for path, array in zip(paths, arrays.values(), strict=True):
        np.save(path, array)
    (entry / SUMS).write_text("".join(f"{sum_line(path)}\n" for path in paths), "ascii")


def sum_line(path: Path) -> str:
    """As sha256sum writes it."""
    return f"{sha256(path)}  {path.name}"
