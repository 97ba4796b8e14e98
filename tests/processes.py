"""The command line in processes of its own, and the stores that they leave."""

import json
import subprocess
import sys
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
