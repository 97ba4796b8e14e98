"""Worker processes: what becomes of them, and of who waits for them, when one is killed."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

ENDLESS = """
import os, pathlib, sys, time
from vibx.workers import worker_pool

def work(started):
    pathlib.Path(started).write_text(str(os.getpid()))
    time.sleep(600)

with worker_pool(2) as pool:
    pool.submit(work, sys.argv[1]).result()
"""
KILLED = """
import os
from vibx.errors import FailedRunError
from vibx.workers import worker_pool

try:
    with worker_pool(2) as pool:
        pool.submit(os._exit, 1).result()
except FailedRunError as error:
    print(error)
"""


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    """Whether there is a process, not counting one that has ended and was not waited for."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_the_process_that_they_work_for_is_killed(tmp_path, number):
    started = tmp_path / "started"
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(started)])
    wait_until(lambda: started.exists() and started.read_text())
    worker = int(started.read_text())
    assert is_running(worker)
    process.send_signal(number)
    process.wait(60)
    wait_until(lambda: not is_running(worker))


def test_a_killed_worker_is_told_in_one_line(interpreter):
    assert interpreter(KILLED) == "a worker process was killed: is there memory enough?\n"
