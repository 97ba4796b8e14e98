"""Figure 2 from made-up records: what stands in it, not how it is painted."""

import itertools
import math

import matplotlib
import numpy as np
import pytest
import scipy.special
import scipy.stats
from matplotlib.colors import to_rgb
from matplotlib.path import Path

from tests.records import with_arrays
from tests.report.figure_runs import EYES, edited, grid, oklab, refused, write
from vibx import store
from vibx.report import published as paper
from vibx.report.drawings import Source, figure2
from vibx.store import StoredRun


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Its runs; the posteriors are Gaussians of every shape, half of them turned."""
    draw = np.random.default_rng(1)
    embedded = []
    for run in write(tmp_path_factory.mktemp("runs"), grid("figure2")):
        arrays = store.read_arrays(run, store.EMBEDDING) | {
            "cholesky": np.tril(draw.normal(size=(1000, 2, 2))),
            "decoder_kernel": draw.normal(size=(2, 10)),
            "decoder_bias": draw.normal(size=10),
        }
        embedded.append(with_arrays(run, store.EMBEDDING, arrays))
    return embedded


@pytest.fixture(scope="module")
def drawn(embedded):
    """The figure and what it plots."""
    return figure2.figure2(embedded)


def test_three_panels_with_equal_scales(drawn):
    figure, plotted = drawn
    for axes in figure.axes[:3]:
        assert axes.get_aspect() == 1
        assert np.ptp(axes.get_xlim()) == pytest.approx(np.ptp(axes.get_ylim()))
        assert len(axes.collections[0].get_offsets()) == 1000
    assert plotted.groupby("panel")["beta"].first().to_dict() == dict(
        zip("abc", paper.FIGURE_2, strict=True)
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list("0123456789")
    assert figure.axes[3].get_ylabel() == "entropy of $q(y|z)$, bits"


def test_titles_give_our_errors_and_the_papers(drawn, embedded):
    for axes, run in zip(drawn[0].axes[:3], embedded, strict=True):
        test = run.record["test"]
        assert f"{100 * test['error_mc']:.2f}\\%" in axes.get_title()
        assert f"{100 * test['error_1']:.2f}\\%" in axes.get_title()
        (published,) = [t.get_text() for t in axes.texts if t.get_text().startswith("paper")]
        for error in paper.FIGURE_2[run.record["config"]["beta"]]:
            assert f"{100 * error:.2f}\\%" in published
    assert drawn[0].axes[0].get_title().startswith("(a) $\\beta =$ $10^{-3}$")


def test_ellipses_hold_95_percent(drawn, embedded):
    """Samples of each Gaussian, in pixels, fall into its ellipse as it is painted."""
    samples = 400
    draw = np.random.default_rng(2)
    drawn[0].draw_without_rendering()
    axes = drawn[0].axes[1]
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


def test_ellipses_have_the_axes_of_the_covariance(drawn, embedded):
    cholesky = np.load(embedded[0].directory / store.EMBEDDING)["cholesky"]
    collection = drawn[0].axes[0].collections[0]
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


def test_almost_all_ellipses_lie_within_the_axes(drawn):
    figure, plotted = drawn
    radius = math.sqrt(scipy.stats.chi2.ppf(0.95, df=2))
    for panel, axes in zip("abc", figure.axes[:3], strict=True):
        rows = plotted[plotted["panel"] == panel]
        for coordinate, (low, high) in (("1", axes.get_xlim()), ("2", axes.get_ylim())):
            reach = radius * np.sqrt(rows[f"covariance_{coordinate}{coordinate}"])
            mean = rows[f"mean_{coordinate}"]
            assert ((mean - reach > low) & (mean + reach < high)).mean() >= 0.99


def test_colours_follow_the_true_class(drawn, embedded):
    labels = np.load(embedded[0].directory / store.EMBEDDING)["labels"]
    axes = drawn[0].axes[0]
    edges = axes.collections[0].get_edgecolors()[:, :3]
    swatches = [to_rgb(handle.get_color()) for handle in drawn[0].legends[0].legend_handles]
    np.testing.assert_allclose(edges, np.array(swatches)[labels])


def test_digits_stand_at_the_median_of_their_class(drawn):
    figure, plotted = drawn
    rows = plotted[plotted["panel"] == "c"]
    medians = rows.groupby("label")[["mean_1", "mean_2"]].median()
    places = {int(t.get_text()): t.xy for t in figure.axes[2].texts if t.get_text().isdigit()}
    assert sorted(places) == list(range(10))
    for digit, place in places.items():
        np.testing.assert_allclose(place, medians.loc[digit])


@pytest.mark.parametrize(("row", "column"), [(0, 0), (17, 230), (150, 150), (299, 299)])
def test_background_is_the_entropy_in_bits(drawn, embedded, row, column):
    embedding = np.load(embedded[2].directory / store.EMBEDDING)
    (image,) = drawn[0].axes[2].images
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


def test_the_table_holds_the_posteriors(drawn, embedded):
    rows = drawn[1].query("panel == 'b'")
    embedding = np.load(embedded[1].directory / store.EMBEDDING)
    factor = embedding["cholesky"]
    covariance = np.einsum("nij,nkj->nik", factor, factor)
    np.testing.assert_array_equal(rows["label"], embedding["labels"])
    np.testing.assert_array_equal(rows[["mean_1", "mean_2"]], embedding["means"])
    entries = rows[["covariance_11", "covariance_12", "covariance_22"]]
    np.testing.assert_allclose(entries, covariance[:, [0, 0, 1], [0, 1, 1]])
    assert set(rows["error_mc"]) == {embedded[1].record["test"]["error_mc"]}


@pytest.mark.usefixtures("not_laid_out")
def test_of_several_seeds_the_first_is_shown(tmp_path):
    stored = write(tmp_path, grid("figure2"), seeds=(3, 1, 2))
    assert set(figure2.figure2(stored)[1]["seed"]) == {1}


@pytest.mark.parametrize("eyes", EYES)
def test_class_colours_differ_for_all_eyes(eyes):
    classes = oklab(figure2.CLASS_COLORS, eyes)
    background = oklab(figure2.GREYS(np.linspace(0, 1, 5)), eyes)
    assert min(math.dist(*pair) for pair in itertools.combinations(classes, 2)) > 0.12
    assert min(math.dist(*pair) for pair in itertools.product(classes, background)) > 0.08


@pytest.mark.usefixtures("sketched", "not_laid_out")
def test_files_are_the_same_each_time_and_matplotlib_is_left_as_it_was(embedded):
    before = dict(matplotlib.rcParams)
    source = Source("smoke", {"figure2": embedded})
    files = figure2.draw(source)
    assert list(files) == ["figure2.pdf", "figure2.png", "figure2.csv"]
    assert figure2.draw(source) == files
    assert dict(matplotlib.rcParams) == before


@pytest.mark.usefixtures("not_laid_out")
def test_other_numbers_of_classes_have_their_colours_and_bits(embedded, tmp_path):
    for classes in (4, 12):
        moved = []
        for run in embedded:
            arrays = store.read_arrays(run, store.EMBEDDING)
            for name in ("decoder_kernel", "decoder_bias"):
                arrays[name] = np.resize(arrays[name], (*arrays[name].shape[:-1], classes))
            arrays["labels"] = arrays["labels"] % classes
            directory = tmp_path / run.directory.name
            moved.append(with_arrays(run, store.EMBEDDING, arrays, directory=directory))
        figure, _ = figure2.figure2(moved)
        digits = [text.get_text() for text in figure.legends[0].get_texts()]
        assert digits == [str(digit) for digit in range(classes)]
        assert figure.axes[0].images[0].get_clim() == (0, math.log2(classes))


# Refusals


def test_no_runs_are_refused():
    assert "no runs" in refused(figure2.figure2, [])


def test_mixed_runs_are_refused(embedded, tmp_path):
    other = edited(embedded[2], tmp_path, lambda record: record["config"].update(epochs=5))
    assert "differ in epochs;" in refused(figure2.figure2, [*embedded[:2], other])


def test_runs_of_another_model_are_refused(tmp_path):
    k256 = write(tmp_path, grid("figure1")[:1])
    assert "not a run with objective=vib,K=2," in refused(figure2.figure2, k256)


def test_a_beta_without_a_run_is_refused(embedded):
    assert "no run with beta=1," in refused(figure2.figure2, embedded[:2])


def test_a_run_without_its_embedding_is_refused(embedded, tmp_path):
    bare = [*embedded[:2], StoredRun(tmp_path, embedded[2].record)]
    message = refused(figure2.figure2, bare)
    assert str(tmp_path / store.EMBEDDING) in message
    assert "make it again with force=true" in message
