"""Fixtures: one prepared data cache for all tests, and the command line as users run it."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from filelock import FileLock
from hypothesis import settings

from tests import processes
from tests.processes import ROOT, TINY

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

OFFLINE_LOAD = """
import logging, os, socket, sys
socket.getaddrinfo = socket.socket.connect = lambda *args, **kwargs: os._exit(97)
logging.basicConfig(level=logging.INFO)
from vibx.data import load
from vibx.data.schemas import IDX
load(IDX("mnist"))
assert "tensorflow" not in sys.modules
"""


def start(script, cache):
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "VIBX_DATA_DIR": str(cache)},
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session")
def preparation(tmp_path_factory, worker_id):
    """Two processes prepare MNIST at once, offline; gives the cache and what each wrote.

    It happens once, in a directory that pytest's workers share.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    cache, log = shared / "cache", shared / "written.json"
    with FileLock(shared / "preparation.lock"):
        if not log.exists():
            left_by_a_killed_process = cache / "mnist.partial" / "mnist"
            left_by_a_killed_process.mkdir(parents=True)
            processes = [start(OFFLINE_LOAD, cache) for _ in range(2)]
            written = [process.communicate(timeout=300) for process in processes]
            assert [process.returncode for process in processes] == [0, 0], written
            log.write_text(json.dumps(written))
    return cache, [tuple(streams) for streams in json.loads(log.read_text())]


@pytest.fixture
def cache(preparation, monkeypatch):
    """The prepared cache, in use. Not to be written to."""
    monkeypatch.setenv("VIBX_DATA_DIR", str(preparation[0]))
    return preparation[0]


@pytest.fixture
def vibx(cache, tmp_path):
    """Run `vibx` with arguments in an empty directory; returns the completed process."""
    return functools.partial(processes.run, tmp_path)


@pytest.fixture
def vibx_program(cache, tmp_path):
    """As `vibx`, but the installed program: what its start does, and for another PYTHONPATH."""
    return functools.partial(processes.run_program, tmp_path)


@pytest.fixture(scope="session")
def finished_run(preparation, tmp_path_factory):
    """A directory whose `runs` has one finished run that learnt something. Not to be written to."""
    directory = tmp_path_factory.mktemp("finished")
    model = [*TINY, "data.train_images=2000", "optimizer.learning_rate=1e-2"]
    environment = {**os.environ, "VIBX_DATA_DIR": str(preparation[0])}
    done = processes.run(directory, "train", *model, env=environment)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture
def interpreter():
    """Run a script in an interpreter of its own, from the root of the code."""

    def run(script):
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


STARTS_PROCESSES = {"preparation", "interpreter"}  # the data's preparation is behind every `vibx`


def pytest_collection_modifyitems(items):
    """Mark the tests that start processes: they are slow, and `make check` leaves them out."""
    for item in items:
        if STARTS_PROCESSES & set(item.fixturenames):
            item.add_marker("slow")


@pytest.fixture(scope="module")
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def compilations():
    """What JAX compiles meanwhile."""
    events = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)
