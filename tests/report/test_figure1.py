"""Figure 1 from made-up records: what stands in it, not how it is painted."""

import dataclasses
import io
import math

import numpy as np
import pandas as pd
import pytest

from tests import records
from tests.report.figure_runs import edited, grid, lines, points, refused, write
from vibx.report import style
from vibx.report.drawings import Source, figure1

ERRORS = {
    "train, 1 shot eval": ("train", "error_1"),
    "train, avg eval": ("train", "error_mc"),
    "test, 1 shot eval": ("test", "error_1"),
    "test, avg eval": ("test", "error_mc"),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return write(root, grid("figure1")), write(root, grid("figure1b"))


@pytest.fixture(scope="module")
def drawn(stored):
    """The figure and what it plots."""
    return figure1.figure1(*stored)


def test_four_panels_on_logarithmic_axes(drawn):
    a, b, c, d = drawn[0].axes
    for axis in (a.xaxis, a.yaxis, b.xaxis, b.yaxis, c.xaxis, d.xaxis, d.yaxis):
        place = axis.get_transform().transform
        np.testing.assert_allclose(np.diff(place([0.01, 0.1, 1.0, 10.0])), 1)
    assert c.get_yscale() == "linear"
    assert [axes.get_title()[:3] for axes in (a, b, c, d)] == ["(a)", "(b)", "(c)", "(d)"]
    assert "beta" in a.get_xlabel()
    assert "I(Z,X)" in c.get_xlabel()
    assert "bits" in c.get_xlabel()
    assert "I(Z,Y)" in c.get_ylabel()
    assert "I(Z,X)" in d.get_ylabel()
    assert "bits" in d.get_ylabel()


def test_error_curves_are_the_records_values(drawn, stored):
    for axes, panel_runs in zip(drawn[0].axes[:2], stored, strict=True):
        found = lines(axes)
        for label, (images, quantity) in ERRORS.items():
            expected = [
                (run.record["config"]["beta"], run.record[images][quantity]) for run in panel_runs
            ]
            np.testing.assert_array_equal(points(found[label]), sorted(expected))


def test_information_curves_are_the_records_values(drawn, stored):
    *_, c, d = drawn[0].axes
    for images in ("train", "test"):
        measured = [(r["config"]["beta"], r[images]) for _, r in stored[0]]
        measured.sort(key=lambda pair: pair[0])
        rates = [m["izx_upper_bits"] for _, m in measured]
        plane = [(m["izx_upper_bits"], m["izy_lower_bits"]) for _, m in measured]
        np.testing.assert_array_equal(points(lines(c)[images]), plane)
        np.testing.assert_array_equal(points(lines(d)[images])[:, 1], rates)
        np.testing.assert_array_equal(
            points(lines(d)[images])[:, 0], [beta for beta, _ in measured]
        )


def test_zero_has_a_place_of_its_own_after_a_break(drawn):
    a, b, _, d = drawn[0].axes
    for axes, axis in ((a, a.xaxis), (a, a.yaxis), (b, b.xaxis), (b, b.yaxis), (d, d.xaxis)):
        values = np.concatenate(
            [points(line)[:, int(axis.axis_name == "y")] for line in lines(axes).values()]
        )
        assert (values == 0).any()
        place = axis.get_transform().transform
        smallest = place(values[values > 0].min())
        low, high = place(sorted(axis.get_view_interval()))
        assert low < place(0.0) == pytest.approx(smallest - 1)
        assert place(values.max()) < high
        zero_tick = list(axis.get_majorticklocs()).index(0)
        assert axis.get_majorticklabels()[zero_tick].get_text() in ("$0$", "0%")
        breaks = [text.xy[axis.axis_name == "y"] for text in axes.texts if text.get_text() == "//"]
        assert any(place(0.0) < place(at) < smallest for at in breaks)


def test_lines_stop_at_the_break_before_beta_zero(drawn):
    a, b, _, d = drawn[0].axes
    for axes, label in ((a, "test, avg eval"), (b, "train, 1 shot eval"), (d, "train")):
        line = lines(axes)[label]
        assert line.get_xdata()[0] == 0
        assert np.isnan(line.get_xdata()[1])
        path = axes.transData.transform(line.get_xydata())
        assert np.isnan(path[1, 0])
        assert np.isfinite(np.delete(path, 1, axis=0)).all()


def test_curves_of_a_panel_differ_without_colour(drawn):
    for axes in drawn[0].axes:
        looks = [
            (line.get_linestyle(), line.get_marker(), line.get_markerfacecolor() == "none")
            for line in lines(axes).values()
        ]
        assert len(set(looks)) == len(looks)
        drawn = [look for look in looks if look[0] != "None"]
        assert len({look[:2] for look in drawn}) == len(drawn)


def test_published_errors_stand_beside_ours(drawn):
    a, b, *_ = drawn[0].axes
    assert points(lines(a)["paper, avg eval"]).tolist() == [[1e-3, 0.0113]]
    average = points(lines(b)["paper, avg eval"]).tolist()
    single = points(lines(b)["paper, 1 shot eval"]).tolist()
    assert average == [[1e-3, 0.0318], [1e-1, 0.0344], [1.0, 0.3382]]
    assert single == [[1e-3, 0.0324], [1e-1, 0.0432], [1.0, 0.6281]]


@pytest.mark.usefixtures("not_laid_out")
def test_published_points_lie_within_axes_whatever_our_errors(tmp_path):
    bad = [
        [records.write_run(tmp_path, c, error_mc=0.9, train_error=0.9) for c in grid(name)]
        for name in ("figure1", "figure1b")
    ]
    figure, _ = figure1.figure1(*bad)
    a, b, *_ = figure.axes
    for axes, error in ((a, 0.0113), (b, 0.0318)):
        low, high = axes.get_ylim()
        assert low < error < high
        assert 0 not in axes.get_yticks()
        assert sum(text.get_text() == "//" for text in axes.texts) == 1


@pytest.mark.usefixtures("not_laid_out")
def test_no_published_error_on_other_data(tmp_path):
    other = [
        [
            dataclasses.replace(c, data=dataclasses.replace(c.data, name="kmnist"))
            for c in grid(name)
        ]
        for name in ("figure1", "figure1b")
    ]
    figure, plotted = figure1.figure1(*[write(tmp_path, configs) for configs in other])
    assert set(lines(figure.axes[0])) == set(ERRORS)
    assert not plotted["curve"].str.startswith("paper").any()


def test_best_beta_and_class_bits_are_marked(drawn):
    figure, plotted = drawn
    a, b, c, d = figure.axes
    assert plotted.loc[plotted["curve"] == "best beta", "x"].tolist() == [3e-3, 3e-3]
    for axes in (a, b):
        assert [3e-3, 3e-3] in [list(line.get_xdata()) for line in axes.lines]
        assert "3 \\times 10^{-3}" in axes.get_legend().get_texts()[0].get_text()
    bits = [math.log2(10)] * 2
    for axes in (c, d):
        assert bits in [list(line.get_ydata()) for line in axes.lines]
        assert "$\\log_2 10$ bits" in [t.get_text() for t in axes.get_legend().get_texts()]
    assert bits in [list(line.get_xdata()) for line in c.lines]


def test_one_seed_has_no_band(drawn):
    assert not any(axes.collections for axes in drawn[0].axes)
    assert "one seed" in drawn[0].axes[0].get_legend().get_title().get_text()


@pytest.mark.usefixtures("not_laid_out")
def test_several_seeds_give_the_mean_and_its_range(tmp_path):
    k256 = write(tmp_path, grid("figure1"), seeds=(0, 1, 2))
    k2 = write(tmp_path, grid("figure1b"), seeds=(0, 1, 2))
    figure, plotted = figure1.figure1(k256, k2)
    assert [len(axes.collections) for axes in figure.axes] == [4, 4, 2, 2]
    assert "range of 3 seeds" in figure.axes[0].get_legend().get_title().get_text()
    curve = plotted.query("panel == 'a' and curve == 'test, avg eval'").set_index("beta")
    for beta in (0.0, 1e-3):
        errors = [r["test"]["error_mc"] for _, r in k256 if r["config"]["beta"] == beta]
        row = curve.loc[beta]
        assert row["y"] == pytest.approx(np.mean(errors))
        assert (row["y_low"], row["y_high"], row["seeds"]) == (min(errors), max(errors), 3)
        band = figure.axes[0].collections[3].get_paths()
        edge = np.concatenate([path.vertices for path in band])
        assert np.isclose(edge, [beta, max(errors)], rtol=1e-12).all(axis=1).any()
        assert np.isclose(edge, [beta, min(errors)], rtol=1e-12).all(axis=1).any()


def test_all_that_is_drawn_is_in_the_table(drawn):
    figure, plotted = drawn
    for panel, axes in zip("abcd", figure.axes, strict=True):
        table = plotted[plotted["panel"] == panel]
        drawn = lines(axes)
        assert set(table["curve"]) - {"best beta", "log2(10)"} == set(drawn)
        for label, line in drawn.items():
            rows = table.loc[table["curve"] == label, ["x", "y"]]
            np.testing.assert_array_equal(points(line), rows)
    assert set(plotted["y_name"]) == {"error_1", "error_mc", "izx_upper_bits", "izy_lower_bits"}


@pytest.mark.usefixtures("not_laid_out")
def test_a_rate_of_zero_is_drawn(stored, tmp_path):
    def collapse(record):
        for images in ("train", "test"):
            record[images]["izx_upper_bits"] = -1e-7

    *rest, last = stored[0]
    figure, _ = figure1.figure1([*rest, edited(last, tmp_path, collapse)], stored[1])
    d = figure.axes[3]
    pixels = d.transData.transform(points(lines(d)["test"]))
    assert d.bbox.y0 < pixels[-1, 1] < pixels[:-1, 1].min()


def test_files_are_the_same_each_time(drawn, stored):
    figure, plotted = drawn
    files = style.files("figure1", figure, plotted, scale="smoke")
    assert list(files) == ["figure1.pdf", "figure1.png", "figure1.csv"]
    pdf, png, csv = files.values()
    assert pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf
    assert b"/Subtype /Type3" not in pdf  # letters are embedded as outlines of a font
    assert png.startswith(b"\x89PNG")
    read = pd.read_csv(io.BytesIO(csv))
    pd.testing.assert_frame_equal(read, plotted, check_dtype=False, check_exact=True)
    k256, k2 = (
        Source("smoke", {name: runs})
        for name, runs in zip(("figure1", "figure1b"), stored, strict=True)
    )
    assert figure1.draw(k256, k2) == files
    assert [text.get_text() for text in figure.texts] == ["scale: smoke"]


@pytest.mark.usefixtures("not_laid_out")
def test_panels_say_how_long_their_runs_were_trained(tmp_path):
    longer = [dataclasses.replace(cfg, epochs=200) for cfg in grid("figure1")]
    k256, k2 = write(tmp_path, longer), write(tmp_path, grid("figure1b"))
    short = k2[0].record["config"]["epochs"]
    figure, plotted = figure1.figure1(k256, k2)
    assert [axes.get_title().rpartition(", ")[2] for axes in figure.axes] == [
        f"{epochs} epochs" for epochs in (200, short, 200, 200)
    ]
    ours = plotted[plotted["seeds"].notna()]
    assert ours.groupby("panel")["epochs"].unique().to_dict() == {
        "a": [200],
        "b": [short],
        "c": [200],
        "d": [200],
    }
    assert plotted.loc[plotted["curve"].str.startswith("paper"), "epochs"].isna().all()


def test_scales_are_said_of_panels_where_they_differ():
    assert figure1.scale_text("fast", "fast") == "fast"
    assert figure1.scale_text("paper", "fast") == "paper (a, c, d), fast (b)"


# Refusals


def test_no_runs_are_refused(stored):
    assert "no runs with objective=vib,K=256" in refused(figure1.figure1, [], stored[1])
    assert "no runs with objective=vib,K=2," in refused(figure1.figure1, stored[0], [])


def test_betas_with_other_seeds_are_refused(stored, tmp_path):
    more = write(tmp_path, grid("figure1")[:3], seeds=(1,))
    message = refused(figure1.figure1, [*stored[0], *more], stored[1])
    assert message == "beta=1e-07 lacks seed 1, which another beta has"


@pytest.mark.parametrize(
    ("key", "value"),
    [("epochs", 5), ("optimizer", {"name": "author"}), ("data", {"name": "kmnist"})],
)
def test_mixed_runs_are_refused(stored, tmp_path, key, value):
    def change(record):
        config = record["config"]
        config[key] = {**config[key], **value} if isinstance(value, dict) else value

    k256, k2 = stored
    mixed = [*k256[:-1], edited(k256[-1], tmp_path, change)]
    message = refused(figure1.figure1, mixed, k2)
    assert f"differ in {key};" in message
    assert mixed[-1].record["run_id"] in message


def test_runs_of_another_model_are_refused(stored):
    k256, k2 = stored
    assert "not a run with objective=vib,K=256" in refused(figure1.figure1, k2, k2)
    assert "not a run with objective=vib,K=2," in refused(figure1.figure1, k256, k256)


def test_runs_without_the_test_images_are_refused(stored, tmp_path):
    validated = [
        dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, validation=1000))
        for cfg in grid("figure1")
    ]
    message = refused(figure1.figure1, write(tmp_path, validated), stored[1])
    assert "data.validation=0" in message
