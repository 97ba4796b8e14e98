"""The command line in processes of its own, and the stores that they leave."""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
VIBX = str(Path(sys.executable).with_name("vibx"))

TINY = [
    "data.train_images=500",
    "data.held_out_images=200",
    "encoder.widths=[16]",
    "K=4",
    "batch_size=50",
    "epochs=2",
    "root=runs",
]
# Half a second an epoch: long enough to be killed in the middle of one.
SLOW = [*TINY, "data.train_images=20000", "batch_size=4", "epochs=5", "checkpoint_every=1"]


# Forked from a process that has imported what a command needs: that is half of a short one's time.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["vibx.commands.attack", "vibx.training.run", "vibx.robustness.run"])


def become_vibx(args, cwd, env, streams):
    """Be `vibx` with arguments, in place of the process that was forked."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for descriptor, path in enumerate((os.devnull, *streams)):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(path, flags), descriptor)
    from vibx.cli import main

    main(args)


def fork(cwd, *args, env=None, streams=(os.devnull, os.devnull)):
    """Start `vibx` from the forks: not for another PYTHONPATH, which they have behind them."""
    process = FORKS.Process(target=become_vibx, args=(args, cwd, env or dict(os.environ), streams))
    process.start()
    return process


def run_program(cwd, *args, env=None):
    """Run the installed program in a directory to its end; returns the completed process."""
    return subprocess.run(
        [VIBX, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )


def run(cwd, *args, env=None, timeout=300):
    """As `run_program`, from the forks."""
    with tempfile.TemporaryDirectory() as written:
        streams = [Path(written) / name for name in ("stdout", "stderr")]
        process = fork(cwd, *args, env=env, streams=streams)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(args, timeout)
        return completed(args, process, streams)


def completed(args, process, streams):
    """A process that was forked and has ended, with what it wrote."""
    out, err = (path.read_text() if path.exists() else "" for path in streams)
    return subprocess.CompletedProcess(args, process.exitcode, out, err)


def start(cwd, *args):
    """Start `vibx` in a directory."""
    return subprocess.Popen(
        [VIBX, *args], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def records(root):
    """The records of a store, by run_id."""
    return {p.parent.name: json.loads(p.read_text()) for p in root.glob("*/metrics.json")}


def epochs_saved(root):
    """Epochs behind the newest finished checkpoint in the store."""
    names = [path.name for path in root.glob("*/checkpoints/*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def final_state(directory):
    """The last state of a finished run."""
    from vibx.config import parse_config
    from vibx.training.checkpoint import Checkpoints

    cfg = parse_config(json.loads((directory / "metrics.json").read_text())["config"])
    return Checkpoints(directory, cfg).read(cfg.epochs).state
