"""The paper's experiments: their grids, their records, and all of them in miniature."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.records import write_attack, write_audit, write_run
from vibx import config, data, store
from vibx.commands.figures import ATTACKS, TRAINED
from vibx.experiments import collect, expand, expand_attacks, read_store
from vibx.store import StoredRun

DRAWN = {"table1", "figure1", "figure2", "figure3", "figure4", "audit", "selections"}
GRIDS = {name: expand(name, scale="fast") for name in TRAINED}


def test_every_experiment_is_drawn():
    files = config.directory("train").parent.glob("*/experiment/*.yaml")
    assert {file.stem for file in files} == {*TRAINED, *ATTACKS}


def test_table_1_is_five_models_of_the_same_seeds_and_recipe():
    seeds = {}
    for cfg in GRIDS["table1"]:
        seeds.setdefault(cfg.objective.name, []).append(cfg.seed)
    assert list(seeds) == [
        "maximum_likelihood",
        "dropout",
        "confidence_penalty",
        "label_smoothing",
        "vib",
    ]
    assert set(map(tuple, seeds.values())) == {(0, 1, 2, 3, 4)}
    assert {(c.K, c.optimizer, c.epochs, c.data.validation) for c in GRIDS["table1"]} == {
        (256, GRIDS["figure1"][0].optimizer, 15, 0)
    }


@pytest.mark.parametrize(
    ("experiment", "K", "bottleneck"),
    [("figure1", 256, "diagonal"), ("figure1b", 2, "full_covariance")],
)
def test_figure_1_sweeps_beta_from_0_to_1_densest_where_things_happen(experiment, K, bottleneck):
    betas = [cfg.beta for cfg in GRIDS[experiment]]
    assert betas == sorted(betas)
    assert betas[:7] == [0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4]
    assert betas[7:] == [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1]
    assert {(cfg.K, cfg.bottleneck.name) for cfg in GRIDS[experiment]} == {(K, bottleneck)}


def test_figure_2_needs_no_run_of_its_own():
    assert set(GRIDS["figure2"]) < set(GRIDS["figure1b"])


@pytest.mark.parametrize("experiment", [name for name in GRIDS if name.startswith("select_")])
def test_selections_never_see_the_test_set_and_contain_what_is_in_use(experiment):
    assert {cfg.data.validation for cfg in GRIDS[experiment]} == {10_000}
    assert {cfg.seed for cfg in GRIDS[experiment]} == {0, 1, 2}
    in_use = {cfg.objective for cfg in GRIDS["table1"]}
    assert in_use & {cfg.objective for cfg in GRIDS[experiment]}


@pytest.mark.parametrize("experiment", GRIDS)
def test_scales_have_the_same_grid(experiment):
    def grid(scale):
        return [
            (c.objective, c.bottleneck, c.K, c.beta, c.seed, c.data.validation)
            for c in expand(experiment, scale=scale)
        ]

    assert grid("paper") == grid("fast") == grid("smoke")


def test_figure_3_turns_the_first_ten_zeros_of_the_test_set_into_ones():
    labels = data._read_idx(Path(data.__file__).parent / "mnist" / "t10k-labels-idx1-ubyte.gz")
    for _, attack in expand_attacks("figure3", scale="fast"):
        assert attack.indices == list(np.flatnonzero(labels == 0)[:10])
        assert (attack.mode, attack.target, attack.samples) == ("targeted", 1, 12)


def test_figure_4_attacks_models_of_figure_3_in_both_modes_and_at_two_confidences():
    found = [
        (conditions, attack.mode, attack.attack.confidence)
        for conditions, attack in expand_attacks("figure4", scale="fast")
    ]
    models = {conditions for conditions, _, _ in found}
    assert models < {conditions for conditions, _ in expand_attacks("figure3", scale="fast")}
    assert sum("beta=" in conditions for conditions in models) == 6
    assert sorted(found) == sorted(itertools.product(models, ("targeted", "untargeted"), (0, 1)))
    mean_mode = expand_attacks("mean_mode", scale="fast")
    assert {attack.samples for _, attack in mean_mode} == {None}
    assert {conditions for conditions, _ in mean_mode} < models


@pytest.mark.parametrize("experiment", ATTACKS)
def test_attacked_runs_are_those_that_other_experiments_train(experiment):
    """Each condition picks one run of Table 1 or Figure 1."""
    trained = [
        StoredRun(Path(cfg.run_id), {"run_id": cfg.run_id, "config": cfg.to_dict()})
        for cfg in dict.fromkeys(GRIDS["table1"] + GRIDS["figure1"])
    ]
    for conditions, _ in expand_attacks(experiment, scale="fast"):
        assert len(store.among(trained, conditions)) == 1


@pytest.mark.parametrize("experiment", ATTACKS)
def test_scales_of_attacks_differ_in_effort_and_executions_alone(experiment):
    def grid(scale):
        return {
            (conditions, attack.mode, attack.samples, attack.target, attack.images)
            for conditions, attack in expand_attacks(experiment, scale=scale)
        }

    assert grid("paper") == grid("fast") == grid("smoke")


def test_an_expanded_experiment_is_what_the_shell_trains(vibx, tmp_path):
    done = vibx("train", "experiment=figure2", "scale=smoke", "root=runs")
    assert done.returncode == 0, done.stderr
    trained = {path.parent.name for path in tmp_path.glob("runs/*/metrics.json")}
    assert trained == {cfg.run_id for cfg in expand("figure2", scale="smoke")}


def test_runs_are_found_by_their_configuration_whatever_the_directory_is_called(tmp_path):
    wanted = expand("figure2", scale="smoke")
    for cfg in wanted[:2]:
        write_run(tmp_path, cfg)
    found = collect("figure2", scale="smoke", store=read_store(tmp_path))
    assert [run.record["run_id"] for run in found.found] == [cfg.run_id for cfg in wanted[:2]]
    assert found.missing == wanted[2:]
    assert collect("figure2", scale="fast", store=read_store(tmp_path)).found == []


def test_the_same_run_twice_is_refused(tmp_path):
    run = write_run(tmp_path, expand("figure2", scale="smoke")[0])
    shutil.copytree(run.directory, tmp_path / "copy")
    with pytest.raises(store.RunError, match="hold the same run; remove one"):
        read_store(tmp_path)


def test_a_record_with_a_number_that_is_not_finite_is_refused(tmp_path):
    run = write_run(tmp_path, expand("figure2", scale="smoke")[0])
    record = json.loads((run.directory / "metrics.json").read_text())
    record["test"]["error_mc"] = float("nan")
    (run.directory / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(store.RunError, match="NaN"):
        read_store(tmp_path)


# vibx figures


def write_store(root, scale, *, without=()):
    """Runs of all experiments, and attacks on them, as they are after training and attacking."""
    for name in set(TRAINED) - set(without):
        for cfg in expand(name, scale=scale):
            if not (root / cfg.run_id).exists():
                write_run(root, cfg)
    stored = store.read_runs(root)
    for name in set(ATTACKS) - set(without):
        for conditions, attack in expand_attacks(name, scale=scale):
            write = write_audit if attack.attack.name == "audit" else write_attack
            write(*store.among(stored, conditions), attack)


def test_figures_draw_the_largest_complete_scale_and_say_which(vibx, tmp_path):
    write_store(tmp_path / "kept" / "smoke", "smoke")
    write_store(tmp_path / "kept" / "fast", "fast", without=["figure1b"])
    done = vibx("figures", "root=kept")
    assert done.returncode == 0, done.stderr
    assert "from kept/smoke, scale=smoke:" in done.stdout
    drawn = {path.name for path in (tmp_path / "outputs" / "figures").iterdir()}
    assert drawn == {
        *(f"figure{n}.{suffix}" for n in (1, 2, 3, 4) for suffix in ("pdf", "png", "csv")),
        *(f"table1.{suffix}" for suffix in ("csv", "md", "tex")),
        *(f"{table}.{suffix}" for table in ("audit", "selections") for suffix in ("csv", "md")),
    }


def test_what_is_missing_is_named_with_its_command_and_the_rest_is_drawn(vibx, tmp_path):
    write_store(tmp_path / "runs", "fast", without=["figure1b", "figure2", "mean_mode"])
    done = vibx("figures", "root=runs", "output=drawn")
    assert done.returncode == 1
    assert (
        "figure1b: 15 of 15 runs are missing: vibx train experiment=figure1b scale=fast root=runs"
        in done.stderr
    )
    assert (
        "mean_mode: 6 of 6 attacks are missing: "
        "vibx attack experiment=mean_mode scale=fast root=runs"
    ) in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "vibx figures: error: runs or attacks are missing for figure1b, figure2, mean_mode"
    )
    assert (tmp_path / "drawn" / "table1.md").exists()
    assert (tmp_path / "drawn" / "figure3.pdf").exists()
    assert not (tmp_path / "drawn" / "figure1.pdf").exists()
    assert not (tmp_path / "drawn" / "figure4.pdf").exists()


@pytest.mark.parametrize("bad", [["root=nowhere"], ["rot=runs"]])
def test_figures_refuse_bad_input_in_one_line(vibx, tmp_path, bad):
    done = vibx("figures", *bad)
    assert done.returncode == 2
    assert done.stderr.startswith("vibx figures: error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_figures_import_no_jax():
    script = "import vibx.commands.figures, sys; assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_all_experiments_in_miniature_from_training_to_drawings(vibx, tmp_path):
    """What `make reproduce SCALE=smoke` does."""
    for experiment in TRAINED:
        done = vibx("train", f"experiment={experiment}", "scale=smoke", "root=runs")
        assert done.returncode == 0, done.stderr
    for experiment in ATTACKS:
        done = vibx("attack", f"experiment={experiment}", "scale=smoke", "root=runs")
        assert done.returncode == 0, done.stderr
    done = vibx("figures", "root=runs")
    assert done.returncode == 0, done.stderr
    drawn = tmp_path / "outputs" / "figures"
    table = pd.read_csv(drawn / "table1.csv")
    assert list(table["seeds"]) == [5] * len(table)
    assert (table["error_mc_percent"] < 50).all()  # it learns
    assert {path.stem for path in drawn.iterdir()} == DRAWN
