"""`vibx export`: what is written gives the recorded numbers without vibx."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
from safetensors.numpy import load_file

from tests.processes import ROOT, TINY, records
from vibx.data import load_test
from vibx.data.schemas import IDX
from vibx.files import LOCK


def test_exported_weights_give_the_recorded_error_in_numpy(vibx, finished_run, tmp_path):
    shutil.copytree(finished_run / "runs", tmp_path / "runs")
    done = vibx("export", "root=runs", "output=weights")
    assert done.returncode == 0, done.stderr
    ((run_id, record),) = records(tmp_path / "weights").items()
    weights = load_file(tmp_path / "weights" / run_id / "model.safetensors")
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float16)}
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    images = load_test(IDX(name="mnist"))
    x = images.pixels[:200] / 127.5 - 1
    hidden = x @ w["encoder.hidden.layers.0.kernel"] + w["encoder.hidden.layers.0.bias"]
    outputs = np.maximum(hidden, 0) @ w["encoder.head.kernel"] + w["encoder.head.bias"]
    mean = outputs[:, : record["config"]["K"]]
    logits = mean @ w["decoder.head.kernel"] + w["decoder.head.bias"]
    assert (logits.argmax(axis=1) != images.labels[:200]).mean() == record["test"]["error_mean"]
    card = (tmp_path / "weights" / run_id / "README.md").read_text()
    assert record["exported"]["weights_sha256"] in card
    assert record["exported"]["provenance"]["command"] == "vibx export"  # no paths

    done = vibx("evaluate", "root=weights", "mc_samples=12")
    assert done.returncode == 0, done.stderr
    evaluated = tmp_path / "weights" / run_id / "evaluation-mc12.json"
    assert json.loads(evaluated.read_text())["test"] == record["test"]


def test_exported_weights_are_attacked_by_their_directory(vibx, finished_run, tmp_path):
    root = f"root={finished_run / 'runs'}"
    assert vibx("export", root, "output=weights").returncode == 0
    (directory,) = (tmp_path / "weights").iterdir()
    done = vibx("attack", f"weights={directory}", "attack=fgsm", "n=6")
    assert done.returncode == 0, done.stderr
    assert len(list(directory.glob("attacks/fgsm-*/metrics.json"))) == 1
    both = vibx("attack", f"weights={directory}", "runs=beta=1e-3", "attack=fgsm")
    assert both.returncode == 2
    assert "runs=beta=1e-3: must be empty beside weights" in both.stderr


def test_weights_are_of_one_directory(vibx, finished_run, tmp_path):
    assert vibx("export", f"root={finished_run / 'runs'}", "output=weights").returncode == 0
    for weights in ("weights", "weights/vib", finished_run / "runs"):
        done = vibx("attack", f"weights={weights}", "attack=fgsm", "n=6")
        assert done.returncode == 2
        assert f"weights={weights}: must be the directory of a run that vibx export" in done.stderr


def test_an_export_takes_no_trained_runs_place(vibx, finished_run, tmp_path):
    shutil.copytree(finished_run / "runs", tmp_path / "runs")
    without = shutil.ignore_patterns("checkpoints")
    shutil.copytree(finished_run / "runs", tmp_path / "records", ignore=without)
    assert vibx("export", "root=runs", "output=weights").returncode == 0
    before = whole_content(tmp_path)
    for options in (["root=runs", "output=runs"], ["root=runs", "output=records"]):
        done = vibx("export", *options)
        assert done.returncode == 2
        assert "must be a directory other than that of a trained vib-K4" in done.stderr
    assert vibx("export", "root=weights", "output=weights").returncode == 2
    assert whole_content(tmp_path) == before


def test_what_was_found_on_other_weights_goes_with_them(vibx, finished_run, tmp_path):
    """And stays where the very same weights are exported again."""
    export = ["export", f"root={finished_run / 'runs'}", "output=weights"]
    assert vibx(*export).returncode == 0
    (directory,) = (tmp_path / "weights").iterdir()
    attack = ["attack", f"weights={directory}", "attack=noise", "n=6"]
    assert vibx(*attack).returncode == 0
    before = whole_content(directory)
    assert vibx(*export).returncode == 0
    assert whole_content(directory) == before
    assert vibx(*export, "dtype=float32").returncode == 0
    assert not (directory / "attacks").exists()
    assert load_file(directory / "model.safetensors")["decoder.head.bias"].dtype == np.float32
    assert vibx("runs", "root=weights", "verify=true", "weights=true").returncode == 0


def test_weights_that_float16_cannot_hold_are_refused(vibx, tmp_path):
    large = ["objective=maximum_likelihood", "optimizer.learning_rate=1e5", "epochs=1"]
    assert vibx("train", *TINY, *large).returncode == 0
    done = vibx("export", "root=runs", "output=weights")
    assert done.returncode == 2
    assert "with weights in float16; dtype=float32 keeps them" in done.stderr
    assert vibx("export", "root=runs", "output=weights", "dtype=float32").returncode == 0


def whole_content(directory):
    return {
        path.relative_to(directory): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != LOCK
    }


def test_a_record_without_weights_is_refused_and_left_as_it_is(vibx, finished_run, tmp_path):
    without = shutil.ignore_patterns("checkpoints")
    shutil.copytree(finished_run / "runs", tmp_path / "runs", ignore=without)
    (run,) = (tmp_path / "runs").iterdir()
    done = vibx("export", "root=runs")
    assert done.returncode == 2
    assert "has no weights: train that run again with force=true" in done.stderr
    assert not (run / "checkpoints").exists()
    assert not (tmp_path / "outputs").exists()


def test_the_committed_weights_give_their_recorded_error_without_vibx():
    directories = sorted((ROOT / "outputs" / "paper" / "weights").iterdir())
    assert len(directories) == 4
    for directory in directories:
        script = [sys.executable, str(ROOT / "scripts" / "load_weights.py"), str(directory)]
        said = subprocess.run(script, capture_output=True, text=True, check=True).stdout
        found, recorded = re.findall(r"([\d.]+)%", said)
        assert found == recorded
