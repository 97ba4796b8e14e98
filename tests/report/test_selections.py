"""Selections of made-up runs: the best value and the one in use are marked."""

import dataclasses
import re

import pytest

from tests.records import write_run
from tests.report.table_runs import SPREAD, chosen, train, validated
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
    table = selections.selections({"select_dropout": stored}).set_index("value")
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
    assert re.search(rf"rate {rate / 2:g} \| 1.30 \[.*\] \| 3 \| best \|\n", text)
    assert re.search(rf"rate {rate:g} \| 1.35 \[.*\] \| 3 \| in use \|\n", text)


def test_selections_are_made_on_validation_images(configs, tmp_path):
    stored = train(tmp_path, chosen(configs, models=["dropout"]), vib=0.01, others=0.02)
    with pytest.raises(RunError, match="has no validation error"):
        selections.selections({"select_dropout": stored})
