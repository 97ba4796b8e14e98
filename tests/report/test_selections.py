"""Selections of made-up runs: the best value and the one in use are marked."""

import dataclasses
import re

import pytest

from tests.records import write_run
from tests.report.table_runs import SPREAD, chosen, train, validated
from vibx.experiments import expand
from vibx.report.drawings import Source, selections
from vibx.store import RunError


def test_selections_mark_the_best_value_and_the_one_in_use(in_use, tmp_path):
    rate = chosen(in_use, models=["dropout"])[0].objective.rate
    means = {rate / 4: 0.0150, rate / 2: 0.0130, rate: 0.0135}
    stored = [
        write_run(
            tmp_path,
            dataclasses.replace(cfg, objective=dataclasses.replace(cfg.objective, rate=rate)),
            error_mc=mean + SPREAD[cfg.seed],
        )
        for rate, mean in means.items()
        for cfg in validated(chosen(in_use, models=["dropout"], seeds=range(3)))
    ]
    table = selections.selections({"select_dropout": stored}, scale="smoke").set_index("value")
    for value, mean in means.items():
        expected = 100 * (mean + SPREAD[:3].mean())
        assert table["validation_error_mc_percent"][value] == pytest.approx(expected)
    assert table.index[table["best"]].tolist() == [rate / 2]
    assert table.index[table["in_use"]].tolist() == [rate]
    assert (table["seeds"] == 3).all()
    files = selections.draw(Source("smoke", {"select_dropout": stored}))
    assert list(files) == ["selections.csv", "selections.md"]
    text = files["selections.md"].decode()
    assert "scale smoke" in text
    assert re.search(rf"rate {rate / 2:g} \| fast, 4 epochs \| 1.30 \[.*\] \| 3 \| best \|\n", text)
    assert re.search(rf"rate {rate:g} \| fast, 4 epochs \| 1.35 \[.*\] \| 3 \| in use \|\n", text)


def test_a_recipes_number_is_selected_as_a_models_is(tmp_path):
    configs = expand("select_decay", scale="smoke")
    decay = expand("table1_best", scale="smoke")[0].optimizer.weight_decay
    stored = [
        write_run(tmp_path, cfg, error_mc=0.0112 + SPREAD[cfg.seed] + 1e-4 * (cfg is configs[0]))
        for cfg in configs
    ]
    table = selections.selections({"select_decay": stored}, scale="smoke").set_index("value")
    assert table.index[table["in_use"]].tolist() == [decay]
    assert table.index[~table["best"]].tolist() == [configs[0].optimizer.weight_decay]
    assert table["model"][decay] == f"VIB, weight decay {decay:g}"
    assert (table["recipe"] == "best, 4 epochs").all()


def test_an_experiments_runs_differ_in_what_it_chooses_alone(tmp_path):
    runs = [write_run(tmp_path, cfg) for cfg in expand("select_decay", scale="smoke")[:2]]
    other = dataclasses.replace(expand("select_decay", scale="smoke")[2], epochs=5)
    with pytest.raises(RunError, match="differ in epochs"):
        selections.selections({"select_decay": [*runs, write_run(tmp_path, other)]}, scale="smoke")


def test_selections_are_made_on_validation_images(configs, tmp_path):
    stored = train(tmp_path, chosen(configs, models=["dropout"]), vib=0.01, others=0.02)
    with pytest.raises(RunError, match="has no validation error"):
        selections.selections({"select_dropout": stored}, scale="smoke")


def test_regularisers_are_selected_with_one_recipe(tmp_path):
    rates, weights = (expand(f"select_{name}", scale="smoke") for name in ("dropout", "penalty"))
    found = {
        "select_dropout": [write_run(tmp_path, rates[0])],
        "select_penalty": [write_run(tmp_path, dataclasses.replace(weights[0], epochs=5))],
    }
    with pytest.raises(RunError, match="differ in epochs"):
        selections.selections(found, scale="smoke")
