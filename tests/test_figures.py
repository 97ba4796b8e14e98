"""Figures 1 and 2 from made-up records: what stands in them, not how it is painted."""

import dataclasses
import itertools
import json
import math
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
from matplotlib.colors import to_rgb
from matplotlib.path import Path

from tests import records
from vibx import experiments, store
from vibx.report import figures
from vibx.report import published as paper
from vibx.store import RunError, StoredRun

ERRORS = {
    "train, 1 shot eval": ("train", "error_1"),
    "train, avg eval": ("train", "error_mc"),
    "test, 1 shot eval": ("test", "error_1"),
    "test, avg eval": ("test", "error_mc"),
}


@pytest.fixture(scope="module")
def grids():
    names = ("figure1", "figure1b", "figure2")
    return {name: experiments.expand(name, scale="smoke") for name in names}


def write(root, configs, *, seeds=(0,)):
    """Runs whose test error is smallest at beta = 3e-3, and whose train error is often 0."""
    draw = np.random.default_rng(0)
    return [
        records.write_run(
            root,
            dataclasses.replace(cfg, seed=seed),
            error_mc=0.012 + abs(cfg.beta - 3e-3) / 2 + draw.integers(5) / 10_000,
            error_1=0.02 + cfg.beta / 2 + draw.integers(5) / 10_000,
            train_error=cfg.beta / 3 if cfg.beta >= 1e-3 else 0.0,
        )
        for cfg in configs
        for seed in seeds
    ]


@pytest.fixture(scope="module")
def stored(grids, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return write(root, grids["figure1"]), write(root, grids["figure1b"])


@pytest.fixture(scope="module")
def figure1(stored):
    return figures.figure1(*stored)


@pytest.fixture(scope="module")
def embedded(grids, tmp_path_factory):
    """Figure 2's runs; the posteriors are Gaussians of every shape, half of them turned."""
    found = write(tmp_path_factory.mktemp("runs"), grids["figure2"])
    draw = np.random.default_rng(1)
    for run in found:
        path = run.directory / store.EMBEDDING
        arrays = {
            **np.load(path),
            "cholesky": np.tril(draw.normal(size=(1000, 2, 2))),
            "decoder_kernel": draw.normal(size=(2, 10)),
            "decoder_bias": draw.normal(size=10),
        }
        store.write_arrays(path, **arrays)
    return found


@pytest.fixture(scope="module")
def figure2(embedded):
    return figures.figure2(embedded)


def panels(figure, n):
    """The panels; a colour bar's axes come after them."""
    return figure.axes[:n]


def lines(axes):
    """The curves and points by their name in the legend."""
    return {line.get_label(): line for line in axes.lines if line.get_label()[0] not in "_$"}


def points(line):
    """A line's points, without the gap at the axis's break."""
    x, y = line.get_data()
    return np.stack([x, y], axis=-1)[~np.isnan(x)]


def edited(run, tmp_path, change):
    """A copy of a run with its record changed; the file is as it was."""
    record = json.loads(json.dumps(run.record))
    change(record)
    return StoredRun(tmp_path, record)


# Figure 1


def test_four_panels_on_logarithmic_axes(figure1):
    a, b, c, d = panels(figure1[0], 4)
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


def test_error_curves_are_the_records_numbers(figure1, stored):
    for axes, panel_runs in zip(panels(figure1[0], 2), stored, strict=True):
        found = lines(axes)
        for label, (images, quantity) in ERRORS.items():
            expected = [
                (run.record["config"]["beta"], run.record[images][quantity]) for run in panel_runs
            ]
            np.testing.assert_array_equal(points(found[label]), sorted(expected))


def test_information_curves_are_the_records_numbers(figure1, stored):
    *_, c, d = panels(figure1[0], 4)
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


def test_zero_has_a_place_of_its_own_after_a_break(figure1):
    a, b, _, d = panels(figure1[0], 4)
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


def test_lines_stop_at_the_break_before_beta_zero(figure1):
    a, b, _, d = panels(figure1[0], 4)
    for axes, label in ((a, "test, avg eval"), (b, "train, 1 shot eval"), (d, "train")):
        line = lines(axes)[label]
        assert line.get_xdata()[0] == 0
        assert np.isnan(line.get_xdata()[1])
        path = axes.transData.transform(line.get_xydata())
        assert np.isnan(path[1, 0])
        assert np.isfinite(np.delete(path, 1, axis=0)).all()


def test_curves_of_a_panel_differ_without_colour(figure1):
    for axes in panels(figure1[0], 4):
        looks = [
            (line.get_linestyle(), line.get_marker(), line.get_markerfacecolor() == "none")
            for line in lines(axes).values()
        ]
        assert len(set(looks)) == len(looks)
        drawn = [look for look in looks if look[0] != "None"]
        assert len({look[:2] for look in drawn}) == len(drawn)


def test_published_errors_stand_beside_ours(figure1):
    a, b, *_ = panels(figure1[0], 4)
    assert points(lines(a)["paper, avg eval"]).tolist() == [[1e-3, 0.0113]]
    average = points(lines(b)["paper, avg eval"]).tolist()
    single = points(lines(b)["paper, 1 shot eval"]).tolist()
    assert average == [[1e-3, 0.0318], [1e-1, 0.0344], [1.0, 0.3382]]
    assert single == [[1e-3, 0.0324], [1e-1, 0.0432], [1.0, 0.6281]]


def test_published_points_lie_within_axes_whatever_our_errors(grids, tmp_path):
    bad = [
        [records.write_run(tmp_path, c, error_mc=0.9, train_error=0.9) for c in grids[name]]
        for name in ("figure1", "figure1b")
    ]
    figure, _ = figures.figure1(*bad)
    a, b, *_ = panels(figure, 4)
    for axes, error in ((a, 0.0113), (b, 0.0318)):
        low, high = axes.get_ylim()
        assert low < error < high
        assert 0 not in axes.get_yticks()
        assert sum(text.get_text() == "//" for text in axes.texts) == 1


def test_no_published_error_on_other_data(grids, tmp_path):
    other = [
        [
            dataclasses.replace(c, data=dataclasses.replace(c.data, name="kmnist"))
            for c in grids[name]
        ]
        for name in ("figure1", "figure1b")
    ]
    figure, numbers = figures.figure1(*[write(tmp_path, configs) for configs in other])
    assert set(lines(figure.axes[0])) == set(ERRORS)
    assert not numbers["curve"].str.startswith("paper").any()


def test_best_beta_and_class_bits_are_marked(figure1):
    figure, numbers = figure1
    a, b, c, d = panels(figure, 4)
    assert numbers.loc[numbers["curve"] == "best beta", "x"].tolist() == [3e-3, 3e-3]
    for axes in (a, b):
        assert [3e-3, 3e-3] in [list(line.get_xdata()) for line in axes.lines]
        assert "3 \\times 10^{-3}" in axes.get_legend().get_texts()[0].get_text()
    bits = [math.log2(10)] * 2
    for axes in (c, d):
        assert bits in [list(line.get_ydata()) for line in axes.lines]
        assert "$\\log_2 10$ bits" in [t.get_text() for t in axes.get_legend().get_texts()]
    assert bits in [list(line.get_xdata()) for line in c.lines]


def test_one_seed_has_no_band(figure1):
    assert not any(axes.collections for axes in panels(figure1[0], 4))
    assert "one seed" in figure1[0].axes[0].get_legend().get_title().get_text()


def test_several_seeds_give_the_mean_and_its_range(grids, tmp_path):
    k256 = write(tmp_path, grids["figure1"], seeds=(0, 1, 2))
    k2 = write(tmp_path, grids["figure1b"], seeds=(0, 1, 2))
    figure, numbers = figures.figure1(k256, k2)
    assert [len(axes.collections) for axes in panels(figure, 4)] == [4, 4, 2, 2]
    assert "range of 3 seeds" in figure.axes[0].get_legend().get_title().get_text()
    curve = numbers.query("panel == 'a' and curve == 'test, avg eval'").set_index("beta")
    for beta in (0.0, 1e-3):
        errors = [r["test"]["error_mc"] for _, r in k256 if r["config"]["beta"] == beta]
        row = curve.loc[beta]
        assert row["y"] == pytest.approx(np.mean(errors))
        assert (row["y_low"], row["y_high"], row["seeds"]) == (min(errors), max(errors), 3)
        band = figure.axes[0].collections[3].get_paths()
        edge = np.concatenate([path.vertices for path in band])
        assert np.isclose(edge, [beta, max(errors)], rtol=1e-12).all(axis=1).any()
        assert np.isclose(edge, [beta, min(errors)], rtol=1e-12).all(axis=1).any()


def test_numbers_hold_all_that_is_drawn(figure1):
    figure, numbers = figure1
    for panel, axes in zip("abcd", panels(figure, 4), strict=True):
        table = numbers[numbers["panel"] == panel]
        drawn = lines(axes)
        assert set(table["curve"]) - {"best beta", "log2(10)"} == set(drawn)
        for label, line in drawn.items():
            rows = table.loc[table["curve"] == label, ["x", "y"]]
            np.testing.assert_array_equal(points(line), rows)
    assert set(numbers["y_name"]) == {"error_1", "error_mc", "izx_upper_bits", "izy_lower_bits"}


def test_a_rate_of_zero_is_drawn(stored, tmp_path):
    def collapse(record):
        for images in ("train", "test"):
            record[images]["izx_upper_bits"] = -1e-7

    *rest, last = stored[0]
    figure, _ = figures.figure1([*rest, edited(last, tmp_path, collapse)], stored[1])
    d = figure.axes[3]
    pixels = d.transData.transform(points(lines(d)["test"]))
    assert d.bbox.y0 < pixels[-1, 1] < pixels[:-1, 1].min()


# Figure 2


def test_three_panels_with_equal_scales(figure2):
    figure, numbers = figure2
    for axes in panels(figure, 3):
        assert axes.get_aspect() == 1
        assert np.ptp(axes.get_xlim()) == pytest.approx(np.ptp(axes.get_ylim()))
        assert len(axes.collections[0].get_offsets()) == 1000
    assert numbers.groupby("panel")["beta"].first().to_dict() == dict(
        zip("abc", paper.FIGURE_2, strict=True)
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list("0123456789")
    assert figure.axes[3].get_ylabel() == "entropy of $q(y|z)$, bits"


def test_titles_give_our_errors_and_the_papers(figure2, embedded):
    for axes, run in zip(panels(figure2[0], 3), embedded, strict=True):
        test = run.record["test"]
        assert f"{100 * test['error_mc']:.2f}\\%" in axes.get_title()
        assert f"{100 * test['error_1']:.2f}\\%" in axes.get_title()
        (published,) = [t.get_text() for t in axes.texts if t.get_text().startswith("paper")]
        for error in paper.FIGURE_2[run.record["config"]["beta"]]:
            assert f"{100 * error:.2f}\\%" in published
    assert figure2[0].axes[0].get_title().startswith("(a) $\\beta =$ $10^{-3}$")


def test_ellipses_hold_95_percent(figure2, embedded):
    """Samples of each Gaussian, in pixels, fall into its ellipse as it is painted."""
    samples = 400
    draw = np.random.default_rng(2)
    figure2[0].draw_without_rendering()
    axes = figure2[0].axes[1]
    collection = axes.collections[0]
    embedding = np.load(embedded[1].directory / store.EMBEDDING)
    assert collection.get_paths() == [Path.unit_circle()]
    to_pixels = collection.get_transform().get_matrix()
    inside = 0
    for mean, factor, shape in zip(
        embedding["means"], embedding["cholesky"], collection.get_transforms(), strict=True
    ):
        z = mean + draw.normal(size=(samples, 2)) @ factor.T
        pixels = axes.transData.transform(z) - axes.transData.transform(mean)
        on_unit_disc = np.linalg.solve((to_pixels @ shape)[:2, :2], pixels.T)
        inside += (np.linalg.norm(on_unit_disc, axis=0) < 1).sum()
    n = samples * len(embedding["means"])
    assert abs(inside / n - 0.95) < 4 * math.sqrt(0.95 * 0.05 / n)


def test_ellipses_have_the_axes_of_the_covariance(figure2, embedded):
    cholesky = np.load(embedded[0].directory / store.EMBEDDING)["cholesky"]
    collection = figure2[0].axes[0].collections[0]
    radius = math.sqrt(scipy.stats.chi2.ppf(0.95, df=2))
    for factor, width, height, angle in zip(
        cholesky[:20],
        collection.get_widths(),
        collection.get_heights(),
        collection.get_angles(),
        strict=False,
    ):
        turn = np.deg2rad(angle)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        deviations = np.diag([width, height]) / (2 * radius)
        covariance = rotation @ deviations**2 @ rotation.T
        np.testing.assert_allclose(covariance, factor @ factor.T, rtol=1e-6, atol=1e-9)


def test_almost_all_ellipses_lie_within_the_axes(figure2):
    figure, numbers = figure2
    radius = math.sqrt(scipy.stats.chi2.ppf(0.95, df=2))
    for panel, axes in zip("abc", panels(figure, 3), strict=True):
        rows = numbers[numbers["panel"] == panel]
        for coordinate, (low, high) in (("1", axes.get_xlim()), ("2", axes.get_ylim())):
            reach = radius * np.sqrt(rows[f"covariance_{coordinate}{coordinate}"])
            mean = rows[f"mean_{coordinate}"]
            assert ((mean - reach > low) & (mean + reach < high)).mean() >= 0.99


def test_colours_follow_the_true_class(figure2, embedded):
    labels = np.load(embedded[0].directory / store.EMBEDDING)["labels"]
    axes = figure2[0].axes[0]
    edges = axes.collections[0].get_edgecolors()[:, :3]
    swatches = [to_rgb(handle.get_color()) for handle in figure2[0].legends[0].legend_handles]
    np.testing.assert_allclose(edges, np.array(swatches)[labels])


def test_digits_stand_at_the_median_of_their_class(figure2):
    figure, numbers = figure2
    rows = numbers[numbers["panel"] == "c"]
    medians = rows.groupby("label")[["mean_1", "mean_2"]].median()
    places = {int(t.get_text()): t.xy for t in figure.axes[2].texts if t.get_text().isdigit()}
    assert sorted(places) == list(range(10))
    for digit, place in places.items():
        np.testing.assert_allclose(place, medians.loc[digit])


@pytest.mark.parametrize(("row", "column"), [(0, 0), (17, 230), (150, 150), (299, 299)])
def test_background_is_the_entropy_in_bits(figure2, embedded, row, column):
    embedding = np.load(embedded[2].directory / store.EMBEDDING)
    (image,) = figure2[0].axes[2].images
    left, right, bottom, top = image.get_extent()
    rows, columns = image.get_array().shape
    z = np.array(
        [
            left + (column + 0.5) * (right - left) / columns,
            bottom + (row + 0.5) * (top - bottom) / rows,
        ]
    )
    q = scipy.special.softmax(z @ embedding["decoder_kernel"] + embedding["decoder_bias"])
    assert image.get_array()[row, column] == pytest.approx(scipy.stats.entropy(q, base=2))
    assert image.origin == "lower"
    assert image.get_clim() == (0, math.log2(10))


def test_numbers_are_the_posteriors(figure2, embedded):
    rows = figure2[1].query("panel == 'b'")
    embedding = np.load(embedded[1].directory / store.EMBEDDING)
    factor = embedding["cholesky"]
    covariance = np.einsum("nij,nkj->nik", factor, factor)
    np.testing.assert_array_equal(rows["label"], embedding["labels"])
    np.testing.assert_array_equal(rows[["mean_1", "mean_2"]], embedding["means"])
    entries = rows[["covariance_11", "covariance_12", "covariance_22"]]
    np.testing.assert_allclose(entries, covariance[:, [0, 0, 1], [0, 1, 1]])
    assert set(rows["error_mc"]) == {embedded[1].record["test"]["error_mc"]}


def test_of_several_seeds_the_first_is_shown(grids, tmp_path):
    stored = write(tmp_path, grids["figure2"], seeds=(3, 1, 2))
    assert set(figures.figure2(stored)[1]["seed"]) == {1}


# Oklab from linear RGB, and what three kinds of colour-blind eyes see (Machado et al., 2009).
LMS = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]
EYES = {
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("eyes", EYES)
def test_class_colours_differ_for_all_eyes(eyes):
    greys = figures.GREYS(np.linspace(0, 1, 5))[:, :3]
    colours = np.array([to_rgb(colour) for colour in figures.CLASS_COLORS])
    rgb = np.concatenate([colours, greys])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(EYES[eyes]), 0, 1)
    lab = np.cbrt(seen @ np.transpose(LMS)) @ np.transpose(LAB)
    classes, background = lab[:10], lab[10:]
    assert min(math.dist(*pair) for pair in itertools.combinations(classes, 2)) > 0.12
    assert min(math.dist(*pair) for pair in itertools.product(classes, background)) > 0.08


# Files


@pytest.mark.parametrize("name", ["figure1", "figure2"])
def test_files_are_written_and_the_same_each_time(name, request, stored, embedded, tmp_path):
    figure, numbers = request.getfixturevalue(name)
    written = figures.save(figure, numbers, tmp_path / "new", name)
    assert [path.name for path in written] == [f"{name}.{s}" for s in ("pdf", "png", "csv")]
    pdf, png, csv = (path.read_bytes() for path in written)
    assert pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf
    assert b"/Subtype /Type3" not in pdf  # letters are embedded as outlines of a font
    assert png.startswith(b"\x89PNG")
    read = pd.read_csv(written[2])
    pd.testing.assert_frame_equal(read, numbers, check_dtype=False, check_exact=True)
    again = figures.figure1(*stored) if name == "figure1" else figures.figure2(embedded)
    rewritten = figures.save(*again, tmp_path, name)
    assert [path.read_bytes() for path in rewritten] == [pdf, png, csv]


def test_matplotlib_is_left_as_it_was(embedded, tmp_path):
    before = dict(matplotlib.rcParams)
    figures.save(*figures.figure2(embedded), tmp_path, "figure2")
    assert dict(matplotlib.rcParams) == before


def test_no_jax_and_no_pyplot():
    script = "import vibx.report.figures, sys; assert not {'jax', 'matplotlib.pyplot'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True)


# Refusals


def refused(call, *args):
    with pytest.raises(RunError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_runs_are_refused(stored):
    assert "no runs with objective=vib,K=256" in refused(figures.figure1, [], stored[1])
    assert "no runs with objective=vib,K=2," in refused(figures.figure1, stored[0], [])
    assert "no runs" in refused(figures.figure2, [])


def test_betas_with_other_seeds_are_refused(grids, stored, tmp_path):
    more = write(tmp_path, grids["figure1"][:3], seeds=(1,))
    message = refused(figures.figure1, [*stored[0], *more], stored[1])
    assert message == "beta=1e-07 lacks seed 1, which another beta has"


@pytest.mark.parametrize(
    ("key", "value"),
    [("epochs", 5), ("optimizer", {"name": "author"}), ("data", {"name": "kmnist"})],
)
def test_mixed_runs_are_refused(stored, embedded, tmp_path, key, value):
    def change(record):
        config = record["config"]
        config[key] = {**config[key], **value} if isinstance(value, dict) else value

    k256, k2 = stored
    mixed = [*k256[:-1], edited(k256[-1], tmp_path, change)]
    message = refused(figures.figure1, mixed, k2)
    assert f"differ in {key};" in message
    assert mixed[-1].record["run_id"] in message
    assert f"differ in {key};" in refused(
        figures.figure2, [*embedded[:2], edited(embedded[2], tmp_path, change)]
    )


def test_runs_of_another_model_are_refused(stored):
    k256, k2 = stored
    assert "not a run with objective=vib,K=256" in refused(figures.figure1, k2, k2)
    assert "not a run with objective=vib,K=2," in refused(figures.figure1, k256, k256)
    assert "not a run with objective=vib,K=2," in refused(figures.figure2, k256)


def test_runs_without_the_test_images_are_refused(grids, stored, tmp_path):
    validated = [
        dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, validation=1000))
        for cfg in grids["figure1"]
    ]
    message = refused(figures.figure1, write(tmp_path, validated), stored[1])
    assert "data.validation=0" in message


def test_figure2_refuses_a_beta_without_a_run(embedded):
    assert "no run with beta=1," in refused(figures.figure2, embedded[:2])


def test_figure2_refuses_a_run_without_its_embedding(embedded, tmp_path):
    bare = [*embedded[:2], StoredRun(tmp_path, embedded[2].record)]
    message = refused(figures.figure2, bare)
    assert str(tmp_path / store.EMBEDDING) in message
    assert "train that run again" in message
