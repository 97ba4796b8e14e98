"""`vibx figures`: what is drawn, at which scale, what is missing, and what is only a file away."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.records import write_experiment, write_run
from vibx import store
from vibx.commands.figures import MissingRunsError, sources_of
from vibx.experiments import Archive, expand
from vibx.report.drawings import Drawing

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "outputs" / "paper"
FIGURE_2 = Drawing("Figure 2", ("figure2",), draw=lambda source: {})
APART = Drawing("Apart", ("figure1", "figure2"), draw=lambda *sources: {}, own_scales=True)
BOTH = Drawing("Both", ("figure2",), draw=lambda *sources: {}, compared=("paper", "fast"))


def scales(drawing, archive, among):
    return [source.scale for source in sources_of(drawing, archive, among)]


# Which scale


def test_the_largest_complete_scale_is_drawn(tmp_path):
    for scale in ("fast", "smoke"):
        write_experiment(tmp_path, "figure2", scale=scale)
    archive = Archive(tmp_path)
    assert scales(FIGURE_2, archive, ["paper", "fast", "smoke"]) == ["fast"]
    assert scales(FIGURE_2, archive, ["smoke"]) == ["smoke"]


def test_scales_side_by_side_need_two_that_have_some(tmp_path):
    write_experiment(tmp_path, "figure2", scale="fast")
    assert scales(BOTH, Archive(tmp_path), ["smoke"]) == []
    write_run(tmp_path, expand("figure2", scale="paper")[1])
    assert scales(BOTH, Archive(tmp_path), ["smoke"]) == ["paper", "fast"]


def test_experiments_apart_are_each_drawn_at_their_own_largest_scale(tmp_path):
    write_experiment(tmp_path, "figure2", scale="paper")
    for scale in ("fast", "smoke"):
        write_experiment(tmp_path, "figure1", scale=scale)
    archive = Archive(tmp_path)
    first, second = sources_of(APART, archive, ["paper", "fast", "smoke"])
    assert (first.scale, list(first.found), len(first.found["figure1"])) == (
        "fast",
        ["figure1"],
        15,
    )
    assert (second.scale, list(second.found), len(second.found["figure2"])) == (
        "paper",
        ["figure2"],
        3,
    )
    with pytest.raises(MissingRunsError) as error:
        sources_of(APART, archive, ["fast", "smoke"])
    assert [line.partition(":")[0] for line in error.value.args] == ["figure2"]


@pytest.mark.parametrize(
    ("present", "among", "said"),
    [
        ({}, ["paper", "fast", "smoke"], "all runs are missing: .* scale=fast "),
        ({"smoke": 1}, ["paper", "fast", "smoke"], "2 of 3 runs are missing: .* scale=smoke "),
        ({"smoke": 1, "paper": 2}, ["paper", "fast", "smoke"], "1 of 3 .* scale=paper "),
        ({"smoke": 3}, ["paper"], "3 of 3 runs are missing: .* scale=paper "),
    ],
)
def test_the_command_is_for_the_scale_that_has_most(tmp_path, present, among, said):
    for scale, runs in present.items():
        for cfg in expand("figure2", scale=scale)[:runs]:
            write_run(tmp_path, cfg)
    with pytest.raises(MissingRunsError, match=said):
        sources_of(FIGURE_2, Archive(tmp_path), among)


# From the shell


def test_the_committed_records_give_the_committed_drawings(vibx, tmp_path):
    """All of them, each at its own scale; numbers to rounding, which is another machine's."""
    done = vibx("figures", f"root={COMMITTED}", "output=drawn")
    assert done.returncode == 0, done.stderr
    shown = dict(line.split(": ") for line in done.stdout.splitlines())
    assert {"Table 1, scale=fast", "Claims, scale=paper,fast"} < set(shown)
    drawn, committed = tmp_path / "drawn", COMMITTED / "fast" / "figures"
    paths = {path for written in shown.values() for path in written.split()}
    assert paths == {f"drawn/{path.name}" for path in drawn.iterdir()}
    assert paths == {f"drawn/{path.name}" for path in committed.iterdir()}
    for path in committed.glob("*.csv"):
        tables = (pd.read_csv(directory / path.name) for directory in (drawn, committed))
        pd.testing.assert_frame_equal(*tables, rtol=1e-6)


def test_what_is_missing_or_damaged_is_named_and_the_rest_is_drawn(vibx, tmp_path):
    root = tmp_path / "runs"
    for name in ("table1", "figure2", "select_dropout", "select_penalty", "select_smoothing"):
        write_experiment(root, name, scale="fast")
    (root / expand("select_dropout", scale="fast")[0].run_id / store.METRICS).write_text("{")
    (root / expand("figure2", scale="fast")[0].run_id / store.EMBEDDING).unlink()
    done = vibx("figures", "root=runs", "output=drawn")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert sum("metrics.json: cannot be used" in line for line in lines) == 1
    assert sum(line.startswith("Figure 2: ") and "embedding.npz" in line for line in lines) == 1
    for line in (
        "figure1: 14 of 15 runs are missing: vibx train experiment=figure1 scale=fast root=runs",
        "mean_mode: all attacks are missing: vibx attack experiment=mean_mode scale=fast root=runs",
        "select_dropout: 1 of 12 runs are missing: "
        "vibx train experiment=select_dropout scale=fast root=runs",
    ):
        assert lines.count(line) == 1
    assert lines[-1] == (
        "vibx figures: error: not drawn: "
        "Audit, Best recipe, Claims, Curves, Figure 1, Figure 2, Figure 3, Figure 4, Robustness, "
        "Robustness of one seed, Selections"
    )
    drawn = {path.stem for path in (tmp_path / "drawn").iterdir()}
    assert drawn == {"table1", "figure2_why", "figure2_why_curves"}


@pytest.mark.parametrize("bad", [["root=nowhere"], ["rot=runs"], ["root=.", "scale=large"]])
def test_figures_refuse_bad_input_in_one_line(vibx, tmp_path, bad):
    done = vibx("figures", *bad)
    assert done.returncode == 2
    assert done.stderr.startswith("vibx figures: error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_figures_import_no_jax():
    script = "import vibx.commands.figures, sys; assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


WIDTHS = """\
# @package _global_
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      K: 8,16
"""
DRAWN_WIDTHS = '''\
"""Errors by K."""

from vibx.report import runs, tables
from vibx.report.drawings import Drawing, Files, Source


def draw(source: Source) -> Files:
    stored = source.found["widths"]
    body = [[str(run.record["config"]["K"]), tables.number(100 * runs.error_of(run, "test"))]
            for run in stored]
    caption = f"Error by K on {runs.origin_text(stored[0], scale=source.scale)}."
    return tables.files("widths", md=tables.markdown(["K", "error, %"], body, caption=caption))


DRAWING = Drawing("Widths", experiments=("widths",), draw=draw)
'''


def test_an_experiment_and_its_table_are_two_files(vibx_program, tmp_path):
    code = tmp_path / "code"
    for directory in ("vibx", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / directory, code / directory)
    modules = code / "vibx" / "report" / "drawings"
    for module in modules.glob("[!_]*.py"):
        module.unlink()  # the others would take their time
    (code / "conf" / "train" / "experiment" / "widths.yaml").write_text(WIDTHS)
    (modules / "widths.py").write_text(DRAWN_WIDTHS)
    environment = {**os.environ, "PYTHONPATH": str(code)}
    model = next(c for c in expand("table1", scale="smoke") if c.objective.name == "vib")
    for K, error in ((8, 0.0213), (16, 0.0154)):
        missing = vibx_program("figures", "root=.", "scale=smoke", env=environment)
        assert "are missing: vibx train experiment=widths scale=smoke root=." in missing.stderr
        write_run(tmp_path, dataclasses.replace(model, K=K), error_mc=error)
    drawn = vibx_program("figures", "root=.", env=environment)
    assert drawn.stdout == "Widths, scale=smoke: outputs/figures/widths.md\n"
    text = (tmp_path / "outputs" / "figures" / "widths.md").read_text()
    assert text.startswith("Error by K on mnist, K = 8, scale smoke (recipe fast, 4 epochs).")
    assert "| 8 | 2.13 |\n| 16 | 1.54 |" in text
