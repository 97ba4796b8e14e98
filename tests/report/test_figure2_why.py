"""Figure 2 beside what its objective allows, from made-up records."""

import dataclasses
import io
import math

import numpy as np
import pandas as pd
import pytest

from tests import records
from tests.report.figure_runs import grid, refused
from vibx.report import class_only
from vibx.report import published as paper
from vibx.report.drawings import Source, figure2_why

LN2 = math.log(2)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [
        records.write_run(root, dataclasses.replace(cfg, seed=seed), error_mc=0.03 + 0.01 * seed)
        for cfg in grid("figure1b")
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def found(stored):
    return {"smoke": figure2_why.trained(stored)}


@pytest.fixture(scope="module")
def table(found):
    return figure2_why.distances(found)


@pytest.fixture(scope="module")
def drawn(found):
    return figure2_why.figure2_why(found)


def test_trained_models_are_means_over_seeds(found, stored):
    row = figure2_why.at(found["smoke"], 0.1)
    assert row["error_mc"] == pytest.approx(0.035)
    assert row["seeds"] == 2
    train = next(r["train"] for _, r in stored if r["config"]["beta"] == 0.1)
    bits = train["distortion_bits"] + 0.1 * train["rate_bits"]
    assert row["objective"] == pytest.approx(bits * LN2)


def test_each_hypothesis_moves_the_papers_six_numbers(table):
    betas = {"as printed": 1, "times ln 2": LN2, "beta / 2": 0.5, "0.99 for 1": 0.99}
    for hypothesis, beta in betas.items():
        rows = table[table["hypothesis"] == hypothesis]
        assert len(rows) == 6
        assert rows["beta"].iloc[-1] == pytest.approx(beta)
        published = [100 * error for pair in paper.FIGURE_2.values() for error in pair]
        assert rows["paper_percent"].tolist() == pytest.approx(published)


def test_a_distance_is_a_difference_in_binomial_standard_errors(table):
    rows = table[(table["hypothesis"] == "as printed") & (table["panel"] == "b")]
    row = rows.set_index("quantity").loc["error_mc"]
    error = 100 * math.sqrt(0.0344 * 0.9656 / 10_000)
    assert row["trained_smoke_distance"] == pytest.approx((3.5 - 3.44) / error)
    moved = table[(table["hypothesis"] == "times ln 2") & (table["panel"] == "c")]
    assert moved["trained_smoke_percent"].isna().all()  # no model was trained with that beta


def test_every_hypothesis_has_its_oracle(table):
    """A search was recorded at each beta that a hypothesis puts a number at."""
    assert table.filter(like="class_alone").notna().all(axis=None)


def test_misread_images_are_those_of_a_simulation():
    draw = np.random.default_rng(0)
    n, share, error = 400_000, 0.1, 0.3
    classes = class_only.CLASSES

    def other(labels):
        return (labels + draw.integers(1, classes, len(labels))) % classes

    label = draw.integers(classes, size=n)
    seen = np.where(draw.random(n) < share, other(label), label)
    answer = np.where(draw.random(n) < error, other(seen), seen)
    expected = figure2_why.misread(error, share=share)
    assert np.mean(answer != label) == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(n))


def test_misreading_changes_nothing_where_nothing_is_known():
    assert figure2_why.misread(0.9) == pytest.approx(0.9)
    assert figure2_why.misread(0.0) == pytest.approx(figure2_why.MISREAD)


def test_all_that_is_drawn_is_in_the_table(drawn):
    figure, plotted = drawn
    for panel, axes in zip("abd", [figure.axes[i] for i in (0, 1, 3)], strict=True):
        rows = plotted[plotted["panel"] == panel]
        curves = [group[["x", "y"]].to_numpy() for _, group in rows.groupby("curve", sort=False)]
        lines = [line.get_xydata() for line in axes.lines]
        assert len(lines) == len(curves)
        for line, curve in zip(lines, curves, strict=True):
            np.testing.assert_allclose(line, curve)
    near = plotted[plotted["panel"] == "c"]
    assert near["x"].between(0.8, 1, inclusive="left").all()


def test_papers_points_lie_where_each_hypothesis_puts_them(drawn):
    _, plotted = drawn
    rows = plotted[(plotted["panel"] == "b") & (plotted["curve"] == "paper, times ln 2")]
    np.testing.assert_allclose(rows["x"], [1e-3 * LN2, 0.1 * LN2, LN2])
    assert rows["y"].tolist() == [0.0318, 0.0344, 0.3382]


def test_nats_above_the_least_are_the_objectives(drawn, found):
    _, plotted = drawn
    rows = plotted[(plotted["panel"] == "d") & (plotted["curve"] == "trained, scale smoke")]
    least = figure2_why.of_kind(figure2_why.optima(), figure2_why.LEAST)
    row = rows[rows["beta"] == 0.1].iloc[0]
    ours = figure2_why.at(found["smoke"], 0.1)["objective"]
    assert row["y"] == pytest.approx(ours - figure2_why.at(least, 0.1)["objective"])
    at_one = rows[rows["beta"] == 1].iloc[0]
    ours = figure2_why.at(found["smoke"], 1.0)["objective"]
    assert at_one["y"] == pytest.approx(ours - math.log(10))


@pytest.mark.usefixtures("sketched", "not_laid_out")
def test_files_of_several_scales(stored):
    half = stored[: len(stored) // 2]
    sources = [
        Source("paper", {"figure1b": half}),
        Source("fast", {"figure1b": stored}),
    ]
    files = figure2_why.draw(*sources)
    assert list(files) == [
        *(f"figure2_why.{suffix}" for suffix in ("pdf", "png")),
        "figure2_why_curves.csv",
        *(f"figure2_why.{suffix}" for suffix in ("csv", "md")),
    ]
    assert figure2_why.draw(*sources) == files
    table = pd.read_csv(io.BytesIO(files["figure2_why.csv"]))
    assert {"trained_paper_percent", "trained_fast_distance"} <= set(table.columns)
    text = files["figure2_why.md"].decode()
    assert "| 0.99 for 1 | c | 0.99 | 33.82 / 62.81 |" in text
    assert "nan" not in text


def test_mixed_runs_are_refused(stored, tmp_path):
    other = dataclasses.replace(grid("figure1b")[3], epochs=5)
    mixed = [*stored, records.write_run(tmp_path, other)]
    assert "differ in epochs;" in refused(figure2_why.trained, mixed)
