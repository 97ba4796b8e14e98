"""Files that are whole, read only as they were written, and not worked on by two processes.

A sealed file is JSON with the SHA-256 of other files (`files`) and of itself (`sha256`: of its
content without that key, in canonical form). Imports no jax.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vibx.errors import DamagedError, LockedError, RunError

LOCK = ".lock"
FILES, SHA256 = "files", "sha256"  # keys of a sealed file
REMEDY = "make it again with force=true"

Arrays = dict[str, npt.NDArray[Any]]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_arrays(path: Path, **arrays: npt.ArrayLike) -> None:
    """Write a compressed .npz, whole."""
    buffer = io.BytesIO()
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez_compressed(buffer, **plain)  # type: ignore[arg-type]  # allow_pickle is not in it
    write_whole(path, buffer.getvalue())


def arrays_in(content: bytes) -> Arrays:
    """The arrays of an .npz."""
    with np.load(io.BytesIO(content)) as arrays:
        return dict(arrays)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def own_sha256(content: dict[str, Any]) -> str:
    """The SHA-256 of what a sealed file says, however its JSON is laid out."""
    rest = {key: value for key, value in content.items() if key != SHA256}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def write_sealed(path: Path, content: dict[str, Any], *, files: Iterable[str]) -> dict[str, Any]:
    """Write JSON, whole, sealed with its own SHA-256 and that of files beside it; returns it."""
    sealed = {key: value for key, value in content.items() if key not in (FILES, SHA256)}
    sealed[FILES] = {name: sha256(path.parent / name) for name in files}
    sealed[SHA256] = own_sha256(sealed)
    write_whole(path, f"{json.dumps(sealed, indent=2)}\n".encode())
    return sealed


def read_sealed(path: Path, *, remedy: str = REMEDY) -> dict[str, Any]:
    """Read a sealed file.

    Raises:
      DamagedError: it cannot be read, or is not as it was written.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DamagedError(f"{path}: missing; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: cannot be used ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{path}: cannot be used (no JSON object); {remedy}")
    if SHA256 not in content:
        raise DamagedError(f"{path}: has no checksum; {remedy}")
    if content[SHA256] != own_sha256(content):
        raise DamagedError(f"{path}: damaged or edited (not its checksum); {remedy}")
    return content


def read_listed(
    directory: Path, name: str, listed: dict[str, str], *, remedy: str = REMEDY
) -> bytes:
    """Read a file of which a sealed one has the SHA-256.

    Raises:
      RunError: it is missing, or was never there.
      DamagedError: it is not as it was written.
    """
    path = directory / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path}: missing; {remedy}") from None
    except OSError as error:
        raise DamagedError(f"{path}: cannot be used ({error}); {remedy}") from error
    if name not in listed:
        raise RunError(f"{path}: has no checksum in its record; {remedy}")
    if hashlib.sha256(content).hexdigest() != listed[name]:
        raise DamagedError(f"{path}: damaged, or of another run (not its checksum); {remedy}")
    return content


def damaged(directory: Path, listed: dict[str, str], *, remedy: str = REMEDY) -> Iterator[str]:
    """A line for each file that is not as a sealed one says."""
    for name in listed:
        try:
            read_listed(directory, name, listed, remedy=remedy)
        except RunError as error:
            yield str(error)


@contextlib.contextmanager
def lock(directory: Path, *, work: str, shared: bool = False) -> Iterator[None]:
    """Hold a directory against other processes; shared, with others that only read it.

    `work` is what the others are told: "trained". A directory that cannot be written to need not
    be held to be read.

    Raises:
      LockedError: another process holds it.
    """
    try:
        descriptor = _locked(directory, shared=shared)
    except BlockingIOError:
        with contextlib.suppress(OSError):
            work = (directory / LOCK).read_text() or work
        raise LockedError(f"{directory.name} is being {work} by another process") from None
    except OSError:
        if not shared or os.access(directory, os.W_OK):
            raise
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a full disk
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, work.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _locked(directory: Path, *, shared: bool) -> int:
    while True:
        if not shared:
            directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(directory / LOCK)):
                return descriptor
        except FileNotFoundError:  # the holder before has removed the directory
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
