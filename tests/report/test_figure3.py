"""Figure 3 from made-up attacks: what stands in it, not how it is painted."""

import io
import itertools
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tests import records
from tests.report.attack_records import BETAS, arrays_of, beta_of, edited, objective
from tests.report.figure_runs import EYES, oklab, refused
from vibx import store
from vibx.report import style
from vibx.report.attacked import BASE, VIB, outcomes
from vibx.report.drawings import Source, figure3


@pytest.fixture(scope="module")
def drawn(attacked):
    """The figure and what it shows."""
    return figure3.figure3(attacked[0])


def cells(figure, plotted):
    """The axes, a row per image, and the outcomes in the same places."""
    grid = np.reshape(figure.axes, (10, -1))
    return grid, np.reshape(plotted["outcome"], (-1, 10)).T


def border(axes):
    (patch,) = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return patch


def test_a_row_per_image_and_a_column_per_model(drawn, attacked):
    grid, _ = cells(*drawn)
    assert grid.shape == (10, 7)
    heads = [axes.get_title() for axes in grid[0]]
    assert heads[:3] == ["original", "deterministic", "dropout"]
    assert [head.split("\n")[1] for head in heads[3:]] == [
        style.in_mathtext(beta) for beta in BETAS
    ]
    arrays = arrays_of(attacked[0][0])
    assert [axes.get_ylabel() for axes in grid[:, 0]] == [str(index) for index in arrays["index"]]
    columns = sorted(attacked[0][2:], key=lambda attack: beta_of(attack.run))
    columns = [attacked[0][1], attacked[0][0], *columns]
    for row in (0, 9):
        shown = [axes.images[0].get_array().ravel() for axes in grid[row]]
        np.testing.assert_array_equal(shown[0], arrays["original"][row] / 255)
        for image, attack in zip(shown[1:], columns, strict=True):
            np.testing.assert_array_equal(image, arrays_of(attack)["adversarial"][row])
        assert {axes.images[0].get_clim() for axes in grid[row]} == {(0, 1)}


@pytest.mark.usefixtures("not_laid_out")
def test_borders_follow_the_votes_and_circles_what_the_attack_saw(attacked):
    votes = np.zeros((10, 10), int)
    votes[:, 0], votes[:, 1], votes[:, 6] = (
        [20, 0, 4, 10, 0, 5, 2, 8, 9, 1],
        [0, 20, 12, 10, 10, 5, 2, 7, 11, 9],
        [0, 0, 4, 0, 10, 10, 16, 5, 0, 10],
    )
    names = ["true", "target", "target", "true", *["other"] * 3, "true", "target", "other"]
    attack = attacked[0][2]
    arrays = dict(arrays_of(attack))
    arrays.update(votes=votes, success=np.arange(10) != 0)
    assert list(outcomes(arrays)) == names
    figure, plotted = figure3.figure3([attacked[0][1], with_arrays(attack, arrays)])
    grid, shown = cells(figure, plotted)
    assert list(shown[:, -1]) == names
    for axes, name, seen in zip(grid[:, -1], names, arrays["success"], strict=True):
        assert border(axes).get_edgecolor()[:3] == to_rgb(figure3.OUTCOMES[name][1]["color"])
        assert len(axes.lines) == (seen and name != "target")
    rows = plotted.query("beta == 0.01")
    np.testing.assert_array_equal(rows["goal_share"], votes[:, 1] / 20)
    np.testing.assert_array_equal(rows["seen"], arrays["success"])


def with_arrays(attack, arrays):
    directory = attack.directory.with_name(f"{attack.directory.name}-changed")
    return records.with_arrays(attack, store.ADVERSARIAL, arrays, directory=directory)


def test_the_legend_names_borders_and_the_circle(drawn):
    (legend,) = drawn[0].legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[0] == "the target, 1"
    assert len(texts) == 4
    edges = [handle.get_edgecolor()[:3] for handle in legend.get_patches()]
    assert edges == [to_rgb(look["color"]) for _, look in figure3.OUTCOMES.values()]
    assert len({look["linestyle"] for _, look in figure3.OUTCOMES.values()}) == 3
    assert "20 answers" in legend.get_title().get_text()


@pytest.mark.parametrize("eyes", EYES)
def test_border_colours_differ_in_lightness_for_all_eyes(eyes):
    lab = oklab([look["color"] for _, look in figure3.OUTCOMES.values()], eyes)
    assert min(math.dist(*pair) for pair in itertools.combinations(lab, 2)) > 0.12
    assert np.diff(np.sort(lab[:, 0])).min() > 0.04


def test_the_table_has_a_row_per_model_and_image(drawn, attacked):
    plotted = drawn[1]
    assert len(plotted) == 60
    assert list(dict.fromkeys(plotted["model"])) == [BASE, "dropout", VIB]
    assert plotted.loc[plotted["model"] != VIB, "beta"].isna().all()
    arrays = arrays_of(attacked[0][2])
    rows = plotted.query("beta == 0.01")
    for name in ("index", "label", "target", "l2", "linf", "l0_8_bits", "l0_visible"):
        np.testing.assert_array_equal(rows[name], arrays[name])


@pytest.mark.usefixtures("not_laid_out")
def test_of_several_seeds_the_first_is_shown(of_seeds):
    figure, plotted = figure3.figure3(of_seeds[0])
    assert len(figure.axes) == 14
    assert set(plotted["seed"]) == set(plotted["attack_seed"]) == {0}


@pytest.mark.parametrize("shape", [(16, 12, 1), (8, 8, 3)])
def test_images_of_other_shapes_are_shown(shape):
    pixels = np.random.default_rng(0).random(np.prod(shape))
    axes = Figure().subplots()
    figure3.draw_image(axes, pixels, shape)
    np.testing.assert_array_equal(axes.images[0].get_array(), pixels.reshape(shape).squeeze())


def test_nothing_reaches_beyond_the_figures_edges(drawn):
    box = drawn[0].get_tightbbox()
    assert (box.min > -0.01).all()
    assert (box.max < drawn[0].get_size_inches() + 0.01).all()


@pytest.mark.usefixtures("sketched")
def test_files_are_the_same_each_time_and_matplotlib_is_left_as_it_was(drawn, attacked):
    before = dict(matplotlib.rcParams)
    files = style.files("figure3", *drawn, scale="smoke")
    assert figure3.draw(Source("smoke", {"figure3": attacked[0]})) == files
    assert dict(matplotlib.rcParams) == before
    read = pd.read_csv(io.BytesIO(files["figure3.csv"]))
    pd.testing.assert_frame_equal(read, drawn[1], check_dtype=False)


# Refusals


def test_without_the_deterministic_model_or_vib_there_is_no_figure(attacked):
    for missing, words in (("maximum_likelihood", "a deterministic model"), ("vib", "a VIB model")):
        fewer = [attack for attack in attacked[0] if objective(attack) != missing]
        assert f"no attack on {words}" in refused(figure3.figure3, fewer)
    assert "deterministic" in refused(figure3.figure3, [])


@pytest.mark.parametrize(
    ("key", "value"), [("images", [3, 10]), ("target", 2), ("confidence", 1.0), ("rechecks", 5)]
)
def test_attacks_of_other_images_or_settings_are_refused(attacked, key, value):
    def change(given, _):
        (given["attack"] if key in given["attack"] else given)[key] = value

    zeros, _ = attacked
    mixed = [*zeros[:-1], edited(zeros[-1], change)]
    assert f"differ in {key}" in refused(figure3.figure3, mixed)


def test_zeros_without_one_target_are_refused(attacked):
    def change(given, _):
        given.update(mode="untargeted", target=None)

    untargeted = [edited(attack, change) for attack in attacked[0]]
    assert "the same target" in refused(figure3.figure3, untargeted)


def test_attacks_on_other_models_are_refused(attacked):
    zeros, _ = attacked

    def with_last(change):
        return refused(figure3.figure3, [*zeros[:-1], edited(zeros[-1], change)])

    assert "differ in epochs" in with_last(lambda _, config: config.update(epochs=7))
    marginal = {"name": "mixture"}
    assert "differ in marginal" in with_last(lambda _, config: config.update(marginal=marginal))
    penalty = {"name": "confidence_penalty"}
    message = with_last(lambda _, config: config.update(objective=penalty))
    assert "no figure has objective=confidence_penalty" in message


def test_a_model_that_lacks_a_seed_of_another_is_refused(of_seeds):
    last = of_seeds[0][-1]
    message = refused(figure3.figure3, of_seeds[0][:-1])
    assert f"beta={beta_of(last.run):g}, model seed 1, lacks" in message
    assert "seed=2" in message
