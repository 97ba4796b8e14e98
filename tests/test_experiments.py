"""The paper's experiments: their grids, and their records."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.records import write_attack, write_run
from vibx import config, store
from vibx.data import idx
from vibx.errors import ConfigError
from vibx.experiments import Archive, command_of, expand, expand_attacks
from vibx.report.runs import SELECTIONS
from vibx.store import RunError, StoredRun


def experiments_of(command):
    return sorted(path.stem for path in (config.directory(command) / "experiment").iterdir())


GRIDS = {name: expand(name, scale="fast") for name in experiments_of("train")}
ATTACKS = experiments_of("attack")


def test_the_command_of_an_experiment_is_where_it_lies():
    assert {command_of(name) for name in GRIDS} == {"train"}
    assert {command_of(name) for name in ATTACKS} == {"attack"}
    with pytest.raises(ConfigError, match="experiment=nothing: no conf"):
        command_of("nothing")


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
    table = GRIDS[SELECTIONS[experiment].table]
    in_use = {(cfg.objective, cfg.optimizer, cfg.epochs) for cfg in table}
    assert in_use & {(cfg.objective, cfg.optimizer, cfg.epochs) for cfg in GRIDS[experiment]}


@pytest.mark.parametrize("experiment", GRIDS)
def test_scales_have_the_same_grid(experiment):
    def grid(scale):
        return [
            (c.objective, c.bottleneck, c.K, c.beta, c.seed, c.data.validation)
            for c in expand(experiment, scale=scale)
        ]

    assert grid("paper") == grid("fast") == grid("smoke")


def test_figure_3_turns_the_first_ten_zeros_of_the_test_set_into_ones():
    labels = idx.read_idx(idx.BUNDLED / "mnist" / "t10k-labels-idx1-ubyte.gz")
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


def test_expected_answers_are_by_votes_and_without_abort():
    found = expand_attacks("figure4_expected", scale="fast")
    (attack,) = {cfg.attack for _, cfg in found}
    assert (attack.votes, attack.votes_needed, attack.abort_early) == (20, 15, False)
    models = {conditions for conditions, _ in found}
    assert len(found) == 2 * len(models) == 2 * 4


@pytest.mark.parametrize("experiment", ATTACKS)
def test_attacked_runs_are_those_that_other_experiments_train(experiment):
    """Each condition picks a run of Table 1 or Figure 1, or one for each seed that it names.

    None of another recipe, beside them in the store.
    """
    grids = [GRIDS[name] for name in ("table1", "figure1", "robustness", "table1_best")]
    trained = [
        StoredRun(Path(cfg.run_id), {"run_id": cfg.run_id, "config": cfg.to_dict()})
        for cfg in dict.fromkeys(itertools.chain(*grids))
    ]
    for conditions, _ in expand_attacks(experiment, scale="fast"):
        assert len(store.among(trained, conditions)) == conditions.count("seed=")


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


# Records


def test_runs_are_found_by_their_configuration(tmp_path):
    wanted = expand("figure2", scale="smoke")
    for cfg in wanted[:2]:
        write_run(tmp_path, cfg)
    archive = Archive(tmp_path)
    found = archive.collect("figure2", scale="smoke", attacked=())
    assert [run.record["run_id"] for run in found.found] == [cfg.run_id for cfg in wanted[:2]]
    assert found.missing == [*wanted[2:]]
    assert archive.collect("figure2", scale="fast", attacked=()).found == []
    assert archive.problems == []


def test_each_scale_may_have_its_own_store(tmp_path):
    wanted = expand("figure2", scale="smoke")
    for cfg in wanted:
        write_run(tmp_path / "smoke", cfg)
    archive = Archive(tmp_path)
    assert archive.scales == ["smoke"]
    assert archive.collect("figure2", scale="smoke", attacked=()).complete
    assert not archive.collect("figure2", scale="paper", attacked=()).complete
    with pytest.raises(RunError, match="no such directory"):
        Archive(tmp_path / "elsewhere")


def test_attacks_are_looked_up_on_the_runs_of_the_named_experiments_alone(tmp_path):
    """Runs of other recipes that fit an attack's conditions do not count."""
    attacks = expand_attacks("mean_mode", scale="smoke")
    models = [cfg for cfg in expand("figure1", scale="smoke") if cfg.beta in (0, 1e-3, 1e-2)]
    for cfg in models:
        other = write_run(tmp_path, dataclasses.replace(cfg, epochs=7))
        for attack in dict.fromkeys(attack for _, attack in attacks):
            write_attack(other, attack)
    before = Archive(tmp_path).collect("mean_mode", scale="smoke", attacked=("figure1",))
    assert (before.found, len(before.missing)) == ([], len(attacks))
    for cfg in models:
        run = write_run(tmp_path, cfg)
        for attack in dict.fromkeys(attack for _, attack in attacks):
            write_attack(run, attack)
    after = Archive(tmp_path).collect("mean_mode", scale="smoke", attacked=("table1", "figure1"))
    assert (len(after.found), after.missing) == (len(attacks), [])
    assert {attack.run.record["config"]["epochs"] for attack in after.found} == {4}


def break_json(path):
    path.write_text("{")


def make_not_finite(path):
    record = json.loads(path.read_text())
    record["test"]["error_mc"] = float("nan")
    path.write_text(json.dumps(record))


def make_unknown(path):
    record = json.loads(path.read_text())
    record["config"]["objective"]["name"] = "unheard_of"
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("damage", [break_json, make_not_finite, make_unknown])
def test_an_unusable_record_is_named_and_the_others_are_found(tmp_path, damage):
    first, *others = [write_run(tmp_path, cfg) for cfg in expand("figure2", scale="smoke")]
    damage(first.directory / store.METRICS)
    archive = Archive(tmp_path)
    (problem,) = archive.problems
    assert "\n" not in problem
    assert first.directory.name in problem
    assert archive.collect("figure2", scale="smoke", attacked=()).found == others


def test_a_run_in_a_directory_of_another_name_is_named(tmp_path):
    run = write_run(tmp_path, expand("figure2", scale="smoke")[0])
    shutil.copytree(run.directory, tmp_path / "copy")
    (problem,) = Archive(tmp_path).problems
    assert f"copy/metrics.json: is the record of {run.directory.name}, and" in problem


def test_an_unusable_attack_is_named_and_missing(tmp_path):
    cfg = next(cfg for cfg in expand("figure1", scale="smoke") if cfg.beta == 1e-3)
    run = write_run(tmp_path, cfg)
    for attack in dict.fromkeys(a for _, a in expand_attacks("mean_mode", scale="smoke")):
        last = write_attack(run, attack)
    break_json(last.directory / store.METRICS)
    archive = Archive(tmp_path)
    collected = archive.collect("mean_mode", scale="smoke", attacked=("figure1",))
    assert [attack.directory != last.directory for attack in collected.found] == [True]
    assert "cannot be used" in archive.problems[0]
