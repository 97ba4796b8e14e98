"""Recipes side by side, of made-up runs."""

import dataclasses
import re

import numpy as np
import pytest
import scipy.stats

from tests.records import write_run
from tests.report.table_runs import SPREAD, chosen, train, with_optimizer
from vibx.report import runs
from vibx.report.drawings import Source, recipes
from vibx.store import RunError


def drawn(stored_by_scale):
    sources = [Source(scale, {"table1": stored}) for scale, stored in stored_by_scale.items()]
    return recipes.draw(*sources)["recipes.md"].decode()


def test_recipes_side_by_side(configs, tmp_path):
    few = chosen(configs, models=["maximum_likelihood", "vib"], seeds=[0, 1, 3])
    few = with_optimizer(few, name="author", schedule="constant")
    spread = SPREAD + np.array([0.0001, 0.0003, 0, 0.0002, 0])
    stored = {
        "long": train(tmp_path, few, vib=0.0120, others=0.0130),
        "short": train(tmp_path, configs, vib=0.0125, others=0.0135, spread=spread),
    }
    table = recipes.recipes(stored).set_index("model")
    assert table.index.tolist() == [runs.model_name(cfg.to_dict()) for cfg in configs[::5]]
    baseline = table.loc["baseline"]
    of_few = 1.30 + 100 * SPREAD[[0, 1, 3]].mean()
    assert baseline["error_mc_long_percent"] == pytest.approx(of_few)
    assert baseline["error_mc_short_percent"] == pytest.approx(1.35 + 100 * spread.mean())
    changes = np.array([0.06, 0.08, 0.07])  # of seeds 0, 1 and 3, in points
    low, high = scipy.stats.ttest_1samp(changes, 0).confidence_interval(0.95)
    assert baseline["short_minus_long_points"] == pytest.approx(changes.mean())
    assert baseline["short_minus_long_low_points"] == pytest.approx(low)
    assert baseline["short_minus_long_high_points"] == pytest.approx(high)
    assert table["short_minus_long_seeds"].tolist() == [3, 0, 0, 0, 3]
    minus_vib = 0.10 + 100 * (SPREAD - SPREAD[::-1])[[0, 1, 3]].mean()
    assert baseline["minus_vib_long_points"] == pytest.approx(minus_vib)
    assert table["minus_vib_long_seeds"].tolist() == [3, 0, 0, 0, 0]
    assert table["minus_vib_short_seeds"].tolist() == [5, 5, 5, 5, 0]
    assert (
        table.loc["dropout, rate 0.5"]
        .filter(like="long")
        .drop(["error_mc_long_seeds", "minus_vib_long_seeds", "short_minus_long_seeds"])
        .isna()
        .all()
    )
    text = drawn(stored)
    assert (
        "| model | long (author, 4 epochs): error, % | short (fast, 4 epochs): error, % |" in text
    )
    assert re.search(r"\| dropout, rate 0.5 \| - \| 1.\d\d \[.*\] \(5\) \| - \|", text)
    assert "| 0.07 [0.05, 0.09] (3) |" in text


def test_recipes_of_different_data_are_refused(configs, tmp_path):
    other = dataclasses.replace(
        configs[0], data=dataclasses.replace(configs[0].data, name="kmnist")
    )
    stored = {"one": [write_run(tmp_path, configs[0])], "two": [write_run(tmp_path, other)]}
    with pytest.raises(RunError, match="differ in data"):
        recipes.recipes(stored)


def test_a_recipe_of_one_seed_has_no_interval(configs, tmp_path):
    stored = {"smoke": [write_run(tmp_path, configs[0], error_mc=0.0131)]}
    text = drawn(stored)
    assert "| baseline | 1.31 (1) |" in text
