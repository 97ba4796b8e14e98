"""Processes that work for another one. Imports no jax."""

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from vibx.errors import FailedRunError


@contextmanager
def worker_pool(most: int) -> Iterator[ProcessPoolExecutor]:
    """A process for each processor, `most` at most; they leave Ctrl-C to this one, and end with it.

    Raises:
      FailedRunError: one of them was killed.
    """
    gc.freeze()  # what is imported by now is neither searched for garbage nor copied for it
    pool = ProcessPoolExecutor(min(most, os.cpu_count() or 1), initializer=_begin)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise FailedRunError("a worker process was killed: is there memory enough?") from error
    finally:
        pool.shutdown(cancel_futures=True)


def end_with(parent: int) -> None:
    """End this process when the one that started it is gone: it would work on for nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with(os.getppid())
