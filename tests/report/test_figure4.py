"""Figure 4 from made-up attacks: what stands in it, not how it is painted."""

import dataclasses
import io

import matplotlib
import numpy as np
import pandas as pd
import pytest

from tests.records import write_attack, write_run
from tests.report.attack_records import (
    BETAS,
    MODES,
    arrays_of,
    beta_of,
    edited,
    objective,
    those,
)
from tests.report.figure_runs import refused
from vibx.report import style
from vibx.report.drawings import Source, figure3, figure4


@pytest.fixture(scope="module")
def drawn(attacked):
    """The figure and what it plots."""
    return figure4.figure4(*attacked)


@pytest.fixture(scope="module")
def drawn_of_seeds(of_seeds):
    """The same of several seeds."""
    return figure4.figure4(*of_seeds)


def curves_of(axes):
    """Points of the curves by name, without the gap at the axis's break, in the drawn order."""
    found = {}
    for line in axes.lines:
        x, y = (np.asarray(values, float) for values in line.get_data())
        found.setdefault(line.get_label(), []).append(np.stack([x, y], -1)[~np.isnan(x)])
    return found


def expected(records, quantity):
    return [(beta, record[quantity]) for beta, record in records.items()]


def legend_texts(owner):
    legend = owner.get_legend() if hasattr(owner, "get_legend") else owner.legends[0]
    return [text.get_text() for text in legend.get_texts()]


def test_four_panels_over_beta_with_a_place_for_zero(drawn):
    a, b, c, d = drawn[0].axes
    for axes, letter in zip((a, b, c, d), "abcd", strict=True):
        assert axes.get_title().startswith(f"({letter})")
        assert axes.get_xlabel() == r"$\beta$"
        place = axes.xaxis.get_transform().transform
        np.testing.assert_allclose(np.diff(place([1e-3, 1e-2, 1e-1])), 1)
        assert place(0.0) == pytest.approx(place(1e-9))
        low, high = place(axes.get_xlim())
        assert low < place(0.0) < place(1e-2) < high
        assert sum(text.get_text() == "//" for text in axes.texts) == 1
    assert "audited" in c.get_title()
    assert b.get_ylim() == c.get_ylim()


def test_norms_are_relative_to_the_deterministic_models(drawn, attacked):
    a = drawn[0].axes[0]
    found = curves_of(a)
    base = arrays_of(attacked[0][1])
    for norm, (label, _) in figure4.NORM_LOOKS.items():
        points = []
        for attack in sorted(attacked[0][2:], key=lambda attack: beta_of(attack.run)):
            arrays = arrays_of(attack)
            mean = arrays[norm][arrays["success"]].mean()
            points.append((beta_of(attack.run), mean / base[norm].mean()))
        np.testing.assert_allclose(found[label][0], points)
    assert [1, 1] in [list(line.get_ydata()) for line in a.lines]
    assert legend_texts(a) == [label for label, _ in figure4.NORM_LOOKS.values()]


def test_successes_seen_and_those_that_hold_are_printed(drawn):
    a = drawn[0].axes[0]
    printed = {text.get_text(): text for text in a.texts}
    for quantity, counts in {"seen": "10 10 10 8", "hold": "10 10 0 0"}.items():
        height = printed[quantity].xy[1]
        row = sorted(
            (text.xy[0], text.get_text())
            for text in a.texts
            if text.xy[1] == height and text.get_text() != quantity
        )
        assert row == list(zip(BETAS, counts.split(), strict=True))
        table = drawn[1].query(f"panel == 'a' and curve == 'VIB, {quantity}'")
        assert list(table["y"]) == [float(count) for count in counts.split()]
    assert any("successes of 10" in text for text in printed)
    highest = max(points[:, 1].max() for curve in curves_of(a).values() for points in curve)
    low, high = a.get_ylim()
    assert highest < low + (printed["hold"].xy[1] - 0.02) * (high - low)


@pytest.mark.parametrize("mode", MODES)
def test_curves_are_the_records_numbers(drawn, attacked, mode):
    _, b, c, d = map(curves_of, drawn[0].axes)
    many = attacked[1]
    weak, sure = (those(many, mode=mode, kappa=kappa) for kappa in (0, 1))
    name = f"VIB, {mode}, kappa={{}}"
    np.testing.assert_array_equal(b[name.format(0)][0], expected(weak, "accuracy_recheck"))
    seen, pale = c[name.format(0)]
    np.testing.assert_array_equal(seen, expected(weak, "accuracy_seen"))
    np.testing.assert_array_equal(pale, expected(weak, "accuracy_recheck"))
    np.testing.assert_array_equal(c[name.format(1)][0], expected(sure, "accuracy_recheck"))
    np.testing.assert_array_equal(d[name.format(0)][0], expected(weak, "l2_median"))
    np.testing.assert_array_equal(d[name.format(1)][0], expected(sure, "l2_median"))


@pytest.mark.parametrize("mode", MODES)
def test_the_deterministic_model_is_a_level_line(drawn, attacked, mode):
    _, b, _, d = map(curves_of, drawn[0].axes)
    for kappa, found, quantity in ((0, b, "accuracy_recheck"), (1, d, "l2_median")):
        record = those(attacked[1], mode=mode, kappa=kappa, model="maximum_likelihood")[None]
        (line,) = found[f"deterministic, {mode}, kappa={kappa}"]
        assert list(line[:, 1]) == [record[quantity]] * 2


def test_mean_mode_is_marked_where_it_was_attacked(drawn, attacked):
    b = drawn[0].axes[1]
    for mode in MODES:
        records = those(attacked[1], mode=mode, kappa=0, mean_mode=True)
        assert list(records) == [0, 1e-3]
        name = f"VIB in mean mode, {mode}, kappa=0"
        np.testing.assert_array_equal(curves_of(b)[name][0], expected(records, "accuracy_recheck"))
        (line,) = [line for line in b.lines if line.get_label() == name]
        assert (line.get_linestyle(), line.get_markerfacecolor()) == ("None", "none")
    assert "VIB in mean mode" in legend_texts(b)


def test_curves_of_a_panel_differ_without_colour(drawn):
    for axes in drawn[0].axes:
        looks = [
            (line.get_linestyle(), line.get_marker(), line.get_markerfacecolor() == "none", size)
            for line in axes.lines
            if line.get_marker() != "" and not line.get_label().startswith("_")
            for size in [line.get_markersize()]
        ]
        assert len(set(looks)) == len(looks) >= 4


def test_numbers_hold_all_that_is_drawn_and_dropout(drawn, attacked):
    figure, plotted = drawn
    assert list(plotted.columns) == style.COLUMNS
    assert not plotted.duplicated(["panel", "curve", "beta", "y_name"]).any()
    for panel, axes in zip("bcd", figure.axes[1:], strict=True):
        table = plotted[plotted["panel"] == panel]
        for name, curves in curves_of(axes).items():
            values = table.loc[table["curve"] == name, "y"]
            assert all(np.isin(points[:, 1], values).all() for points in curves)
    record = those(attacked[1], mode="targeted", kappa=1, model="dropout")[None]
    row = plotted.query("panel == 'd' and curve == 'dropout, targeted, kappa=1'")
    assert (row["y"].item(), row["y_name"].item()) == (record["l2_median"], "l2_median")
    assert row["beta"].isna().all()


def test_one_execution_has_no_band(drawn):
    assert not any(axes.collections for axes in drawn[0].axes)
    assert "10 test images, one execution" in drawn[0].legends[0].get_title().get_text()


def test_several_seeds_give_the_mean_and_its_range(of_seeds, drawn_of_seeds):
    figure, plotted = drawn_of_seeds
    assert [len(axes.collections) for axes in figure.axes] == [4, 4, 6, 4]
    assert "range of 6 executions" in figure.legends[0].get_title().get_text()
    sizes = [
        record["l2_median"]
        for run, _, record in of_seeds[1]
        if beta_of(run) == 1e-3
        and record["attack"]["mode"] == "targeted"
        and record["attack"]["attack"]["confidence"] == 1
    ]
    row = plotted.query("panel == 'd' and curve == 'VIB, targeted, kappa=1' and beta == 0.001")
    assert row["y"].item() == pytest.approx(np.mean(sizes))
    assert (row["y_low"].item(), row["y_high"].item()) == (min(sizes), max(sizes))
    assert min(sizes) < max(sizes)
    assert row["seeds"].item() == 6


@pytest.mark.usefixtures("not_laid_out")
def test_attacks_without_a_success_leave_gaps_and_none_in_mean_mode_no_mark(grids, tmp_path):
    models, attacks = grids
    stored = [write_run(tmp_path, cfg) for cfg in models]
    two = dataclasses.replace(attacks["figure3"][0], images=(3, 10))
    zeros = [write_attack(run, two, seen=0) for run in stored]
    many = [write_attack(run, cfg, seen=0) for run in stored for cfg in attacks["figure4"]]
    figure, plotted = figure4.figure4(zeros, many)
    assert "VIB in mean mode" not in legend_texts(figure.axes[1])
    assert not plotted["curve"].str.contains("mean mode").any()
    assert plotted.loc[plotted["y_name"] == "l2_median", "y"].isna().all()
    assert set(figure3.figure3(zeros)[1]["outcome"]) == {"true"}


def test_titles_legends_and_data_do_not_overlap(drawn):
    for axes in drawn[0].axes:
        legend, title = axes.get_legend().get_window_extent(), axes.title.get_window_extent()
        assert axes.bbox.y1 <= legend.y0
        assert legend.y1 <= title.y0 + 2.5  # the legend's own margin


def test_nothing_reaches_beyond_the_figures_edges(drawn):
    box = drawn[0].get_tightbbox()
    assert (box.min > -0.01).all()
    assert (box.max < drawn[0].get_size_inches() + 0.01).all()


@pytest.mark.usefixtures("sketched")
def test_files_are_the_same_each_time_and_matplotlib_is_left_as_it_was(drawn_of_seeds, of_seeds):
    before = dict(matplotlib.rcParams)
    files = style.files("figure4", *drawn_of_seeds, scale="smoke")
    targeted, accuracy = of_seeds
    in_mean_mode = [a for a in accuracy if a.record["attack"]["samples"] is None]
    others = [a for a in accuracy if a.record["attack"]["samples"] is not None]
    source = Source("smoke", {"figure3": targeted, "figure4": others, "mean_mode": in_mean_mode})
    assert figure4.draw(source) == files
    assert dict(matplotlib.rcParams) == before
    read = pd.read_csv(io.BytesIO(files["figure4.csv"]))
    pd.testing.assert_frame_equal(read, drawn_of_seeds[1], check_dtype=False)


# Refusals


def test_without_the_deterministic_model_or_vib_there_is_no_figure(attacked):
    zeros, many = attacked
    for missing, words in (("maximum_likelihood", "a deterministic model"), ("vib", "a VIB model")):
        fewer = [[a for a in attacks if objective(a) != missing] for attacks in attacked]
        assert f"no attack on {words}" in refused(figure4.figure4, fewer[0], many)
        assert f"no attack on {words}" in refused(figure4.figure4, zeros, fewer[1])
    assert "deterministic" in refused(figure4.figure4, zeros, [])


def test_zeros_of_other_settings_are_refused(attacked):
    zeros, many = attacked
    mixed = [*zeros[:-1], edited(zeros[-1], lambda given, _: given.update(rechecks=5))]
    assert "differ in rechecks" in refused(figure4.figure4, mixed, many)


@pytest.mark.parametrize(("key", "value"), [("n", 30), ("samples", 1), ("iterations", 7)])
def test_accuracies_after_other_attacks_are_refused(attacked, key, value):
    def change(given, _):
        (given["attack"] if key in given["attack"] else given)[key] = value

    zeros, many = attacked
    for place in (3, 20):
        mixed = [*many[:place], edited(many[place], change), *many[place + 1 :]]
        assert f"differ in {key}" in refused(figure4.figure4, zeros, mixed)


def test_a_model_that_lacks_an_attack_of_another_is_refused(attacked):
    zeros, many = attacked
    gap = next(
        a for a in many if beta_of(a.run) == 1e-3 and a.record["attack"]["mode"] == "untargeted"
    )
    message = refused(figure4.figure4, zeros, [a for a in many if a is not gap])
    assert message == (
        "VIB beta=0.001, model seed 0, lacks what another has: the attack with mode=untargeted, "
        "confidence=0, seed=0"
    )
    for kappa in (0, 1):
        fewer = [a for a in many if a.record["attack"]["attack"]["confidence"] != kappa]
        message = refused(figure4.figure4, zeros, fewer)
        assert message == f"no targeted attack with confidence={kappa}"
