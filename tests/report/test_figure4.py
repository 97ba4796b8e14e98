"""Figures 3 and 4 from made-up attacks: what stands in them, not how it is painted."""

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
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from tests.records import write_attack, write_run
from tests.test_figures import EYES, LAB, LMS, refused
from vibx import experiments, store
from vibx.report import attack_figures, figures
from vibx.report.attack_figures import BASE, OUTCOMES, VIB
from vibx.store import StoredAttack, StoredRun

BETAS = 0.0, 1e-8, 1e-3, 1e-2
MODES = "targeted", "untargeted"


@pytest.fixture(scope="module")
def grids():
    """The deterministic model, dropout and VIB at `BETAS`; the attacks of both figures."""
    of_objective = {cfg.objective.name: cfg for cfg in experiments.expand("table1", scale="smoke")}
    models = [of_objective["dropout"], of_objective["maximum_likelihood"]]
    models += [dataclasses.replace(of_objective["vib"], beta=beta) for beta in reversed(BETAS)]
    attacks = {
        name: list(dict.fromkeys(cfg for _, cfg in experiments.expand_attacks(name, scale="smoke")))
        for name in ("figure3", "figure4", "mean_mode")
    }
    return [dataclasses.replace(cfg, seed=0) for cfg in models], attacks


def beta_of(run):
    return run.record["config"]["beta"]


def robust(run):
    """Larger with beta, and 0 for models other than VIB."""
    beta = beta_of(run)
    return 0.0 if beta is None else 1 + math.log10(beta + 1e-9) / 12


def attack_zeros(run, cfg, **numbers):
    """An attack on Figure 3's images; on VIB its size, its pixels and its success vary."""
    by_beta = {
        "size": 0.2 + 0.1 * robust(run),
        "pixels": 100 - round(40 * robust(run)),
        "seen": 0.8 if beta_of(run) == 1e-2 else 1.0,
        "held": 1 - robust(run),
    }
    return write_attack(run, cfg, **by_beta | numbers)


def attack_many(run, cfg):
    """An attack of Figure 4(b): at kappa = 0, or at a mean of z, what the attack saw differs."""
    kappa, untargeted = cfg.attack.confidence, cfg.mode == "untargeted"
    held = 1 if kappa or cfg.samples is None else 1 - robust(run) * (0.9 if untargeted else 0.7)
    seen = 0.95 if beta_of(run) == 1e-2 else 1.0
    size = 0.2 + 0.02 * kappa + 0.05 * robust(run) - 0.05 * untargeted + cfg.seed / 1000
    return write_attack(run, cfg, held=held, seen=seen, size=size)


def attack_all(root, grids, *, seeds=(0,), attack_seeds=(0,), images=None):
    """The attacks of Figure 3, perhaps on fewer images, and those of Figure 4."""
    models, attacks = grids
    models = [dataclasses.replace(cfg, seed=seed) for cfg in models for seed in seeds]
    stored = [write_run(root, cfg) for cfg in models]

    def seeded(name):
        for cfg, seed in itertools.product(attacks[name], attack_seeds):
            listed = cfg.images and (images or cfg.images)
            yield dataclasses.replace(cfg, seed=seed, images=listed)

    zeros = [attack_zeros(run, cfg) for run in stored for cfg in seeded("figure3")]
    many = [attack_many(run, cfg) for run in stored for cfg in seeded("figure4")]
    in_mean_mode = [run for run in stored if beta_of(run) in (0, 1e-3)]
    many += [attack_many(run, cfg) for run in in_mean_mode for cfg in seeded("mean_mode")]
    return zeros, many


@pytest.fixture(scope="module")
def attacked(grids, tmp_path_factory):
    return attack_all(tmp_path_factory.mktemp("runs"), grids)


@pytest.fixture(scope="module")
def figure3(attacked):
    return attack_figures.figure3(attacked[0])


@pytest.fixture(scope="module")
def figure4(attacked):
    return attack_figures.figure4(*attacked)


@pytest.fixture(scope="module")
def of_seeds(grids, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return attack_all(root, grids, seeds=(0, 1), attack_seeds=(0, 1, 2), images=(3, 10))


@pytest.fixture(scope="module")
def figures_of_seeds(of_seeds):
    """Both figures, and whether they left matplotlib as it was."""
    before = dict(matplotlib.rcParams)
    drawn = attack_figures.figure3(of_seeds[0]), attack_figures.figure4(*of_seeds)
    return *drawn, dict(matplotlib.rcParams) == before


def arrays_of(attack):
    return np.load(attack.directory / store.ADVERSARIAL)


def edited(attack, change):
    """A copy of an attack with its record, or its run's, changed; the files are as they were."""
    record, of_run = json.loads(json.dumps([attack.record, attack.run.record]))
    change(record["attack"], of_run["config"])
    return StoredAttack(StoredRun(attack.run.directory, of_run), attack.directory, record)


def those(attacks, *, mode, kappa, model="vib", mean_mode=False):
    """Records of attacks by beta."""
    return {
        beta_of(run): record
        for run, _, record in sorted(attacks, key=lambda a: beta_of(a.run) or 0)
        if run.record["config"]["objective"]["name"] == model
        and record["attack"]["mode"] == mode
        and record["attack"]["attack"]["confidence"] == kappa
        and (record["attack"]["samples"] is None) == mean_mode
    }


def drawn(axes):
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


# Figure 3


def cells(figure, numbers):
    """The axes, a row per image, and the outcomes in the same places."""
    grid = np.reshape(figure.axes, (10, -1))
    return grid, np.reshape(numbers["outcome"], (-1, 10)).T


def border(axes):
    (patch,) = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return patch


def test_a_row_per_image_and_a_column_per_model(figure3, attacked):
    grid, _ = cells(*figure3)
    assert grid.shape == (10, 7)
    heads = [axes.get_title() for axes in grid[0]]
    assert heads[:3] == ["original", "deterministic", "dropout"]
    assert [head.split("\n")[1] for head in heads[3:]] == [
        figures.in_mathtext(beta) for beta in BETAS
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
    assert list(attack_figures.outcomes(arrays)) == names
    figure, numbers = attack_figures.figure3([attacked[0][1], with_arrays(attack, arrays)])
    grid, outcomes = cells(figure, numbers)
    assert list(outcomes[:, -1]) == names
    for axes, name, seen in zip(grid[:, -1], names, arrays["success"], strict=True):
        assert border(axes).get_edgecolor()[:3] == to_rgb(OUTCOMES[name][1]["color"])
        assert len(axes.lines) == (seen and name != "target")
    rows = numbers.query("beta == 0.01")
    np.testing.assert_array_equal(rows["goal_share"], votes[:, 1] / 20)
    np.testing.assert_array_equal(rows["seen"], arrays["success"])


def with_arrays(attack, arrays):
    directory = attack.directory.with_name(f"{attack.directory.name}-changed")
    directory.mkdir(exist_ok=True)
    store.write_arrays(directory / store.ADVERSARIAL, **arrays)
    return attack._replace(directory=directory)


def test_the_legend_names_borders_and_the_circle(figure3):
    (legend,) = figure3[0].legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[0] == "the target, 1"
    assert len(texts) == 4
    edges = [handle.get_edgecolor()[:3] for handle in legend.get_patches()]
    assert edges == [to_rgb(look["color"]) for _, look in OUTCOMES.values()]
    assert len({look["linestyle"] for _, look in OUTCOMES.values()}) == 3
    assert "20 answers" in legend.get_title().get_text()


@pytest.mark.parametrize("eyes", EYES)
def test_border_colours_differ_in_lightness_for_all_eyes(eyes):
    rgb = np.array([to_rgb(look["color"]) for _, look in OUTCOMES.values()])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(EYES[eyes]), 0, 1)
    lab = np.cbrt(seen @ np.transpose(LMS)) @ np.transpose(LAB)
    assert min(math.dist(*pair) for pair in itertools.combinations(lab, 2)) > 0.12
    assert np.diff(np.sort(lab[:, 0])).min() > 0.04


def test_numbers_are_a_row_per_model_and_image(figure3, attacked):
    numbers = figure3[1]
    assert len(numbers) == 60
    assert list(dict.fromkeys(numbers["model"])) == [BASE, "dropout", VIB]
    assert numbers.loc[numbers["model"] != VIB, "beta"].isna().all()
    arrays = arrays_of(attacked[0][2])
    rows = numbers.query("beta == 0.01")
    for name in ("index", "label", "target", "l2", "linf", "l0_8_bits", "l0_visible"):
        np.testing.assert_array_equal(rows[name], arrays[name])


def test_of_several_seeds_figure_3_shows_the_first(figures_of_seeds):
    figure, numbers = figures_of_seeds[0]
    assert len(figure.axes) == 14
    assert set(numbers["seed"]) == set(numbers["attack_seed"]) == {0}


# Figure 4


def test_four_panels_over_beta_with_a_place_for_zero(figure4):
    a, b, c, d = figure4[0].axes
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


def test_norms_are_relative_to_the_deterministic_models(figure4, attacked):
    a = figure4[0].axes[0]
    found = drawn(a)
    base = arrays_of(attacked[0][1])
    for norm, (label, _) in attack_figures.NORM_LOOKS.items():
        points = []
        for attack in sorted(attacked[0][2:], key=lambda attack: beta_of(attack.run)):
            arrays = arrays_of(attack)
            mean = arrays[norm][arrays["success"]].mean()
            points.append((beta_of(attack.run), mean / base[norm].mean()))
        np.testing.assert_allclose(found[label][0], points)
    assert [1, 1] in [list(line.get_ydata()) for line in a.lines]
    assert legend_texts(a) == [label for label, _ in attack_figures.NORM_LOOKS.values()]


def test_successes_seen_and_those_that_hold_are_printed(figure4):
    a = figure4[0].axes[0]
    printed = {text.get_text(): text for text in a.texts}
    for quantity, counts in {"seen": "10 10 10 8", "hold": "10 10 0 0"}.items():
        height = printed[quantity].xy[1]
        row = sorted(
            (text.xy[0], text.get_text())
            for text in a.texts
            if text.xy[1] == height and text.get_text() != quantity
        )
        assert row == list(zip(BETAS, counts.split(), strict=True))
        table = figure4[1].query(f"panel == 'a' and curve == 'VIB, {quantity}'")
        assert list(table["y"]) == [float(count) for count in counts.split()]
    assert any("successes of 10" in text for text in printed)
    highest = max(points[:, 1].max() for curve in drawn(a).values() for points in curve)
    low, high = a.get_ylim()
    assert highest < low + (printed["hold"].xy[1] - 0.02) * (high - low)


@pytest.mark.parametrize("mode", MODES)
def test_curves_are_the_records_numbers(figure4, attacked, mode):
    _, b, c, d = map(drawn, figure4[0].axes)
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
def test_the_deterministic_model_is_a_level_line(figure4, attacked, mode):
    _, b, _, d = map(drawn, figure4[0].axes)
    for kappa, found, quantity in ((0, b, "accuracy_recheck"), (1, d, "l2_median")):
        record = those(attacked[1], mode=mode, kappa=kappa, model="maximum_likelihood")[None]
        (line,) = found[f"deterministic, {mode}, kappa={kappa}"]
        assert list(line[:, 1]) == [record[quantity]] * 2


def test_mean_mode_is_marked_where_it_was_attacked(figure4, attacked):
    b = figure4[0].axes[1]
    for mode in MODES:
        records = those(attacked[1], mode=mode, kappa=0, mean_mode=True)
        assert list(records) == [0, 1e-3]
        name = f"VIB in mean mode, {mode}, kappa=0"
        np.testing.assert_array_equal(drawn(b)[name][0], expected(records, "accuracy_recheck"))
        (line,) = [line for line in b.lines if line.get_label() == name]
        assert (line.get_linestyle(), line.get_markerfacecolor()) == ("None", "none")
    assert "VIB in mean mode" in legend_texts(b)


def test_curves_of_a_panel_differ_without_colour(figure4):
    for axes in figure4[0].axes:
        looks = [
            (line.get_linestyle(), line.get_marker(), line.get_markerfacecolor() == "none", size)
            for line in axes.lines
            if line.get_marker() != "" and not line.get_label().startswith("_")
            for size in [line.get_markersize()]
        ]
        assert len(set(looks)) == len(looks) >= 4


def test_numbers_hold_all_that_is_drawn_and_dropout(figure4, attacked):
    figure, numbers = figure4
    assert list(numbers.columns) == figures.COLUMNS
    assert not numbers.duplicated(["panel", "curve", "beta", "y_name"]).any()
    for panel, axes in zip("bcd", figure.axes[1:], strict=True):
        table = numbers[numbers["panel"] == panel]
        for name, curves in drawn(axes).items():
            values = table.loc[table["curve"] == name, "y"]
            assert all(np.isin(points[:, 1], values).all() for points in curves)
    record = those(attacked[1], mode="targeted", kappa=1, model="dropout")[None]
    row = numbers.query("panel == 'd' and curve == 'dropout, targeted, kappa=1'")
    assert (row["y"].item(), row["y_name"].item()) == (record["l2_median"], "l2_median")
    assert row["beta"].isna().all()


def test_one_execution_has_no_band(figure4):
    assert not any(axes.collections for axes in figure4[0].axes)
    assert "10 test images, one execution" in figure4[0].legends[0].get_title().get_text()


def test_several_seeds_give_the_mean_and_its_range(of_seeds, figures_of_seeds):
    figure, numbers = figures_of_seeds[1]
    assert [len(axes.collections) for axes in figure.axes] == [4, 4, 6, 4]
    assert "range of 6 executions" in figure.legends[0].get_title().get_text()
    sizes = [
        record["l2_median"]
        for run, _, record in of_seeds[1]
        if beta_of(run) == 1e-3
        and record["attack"]["mode"] == "targeted"
        and record["attack"]["attack"]["confidence"] == 1
    ]
    row = numbers.query("panel == 'd' and curve == 'VIB, targeted, kappa=1' and beta == 0.001")
    assert row["y"].item() == pytest.approx(np.mean(sizes))
    assert (row["y_low"].item(), row["y_high"].item()) == (min(sizes), max(sizes))
    assert min(sizes) < max(sizes)
    assert row["seeds"].item() == 6


def test_attacks_without_a_success_leave_gaps_and_none_in_mean_mode_no_mark(grids, tmp_path):
    models, attacks = grids
    stored = [write_run(tmp_path, cfg) for cfg in models]
    two = dataclasses.replace(attacks["figure3"][0], images=(3, 10))
    zeros = [write_attack(run, two, seen=0) for run in stored]
    many = [write_attack(run, cfg, seen=0) for run in stored for cfg in attacks["figure4"]]
    figure, numbers = attack_figures.figure4(zeros, many)
    assert "VIB in mean mode" not in legend_texts(figure.axes[1])
    assert not numbers["curve"].str.contains("mean mode").any()
    assert numbers.loc[numbers["y_name"] == "l2_median", "y"].isna().all()
    assert set(attack_figures.figure3(zeros)[1]["outcome"]) == {"true"}


@pytest.mark.parametrize("name", ["figure3", "figure4"])
def test_nothing_reaches_beyond_the_figures_edges(name, request):
    figure, _ = request.getfixturevalue(name)
    box = figure.get_tightbbox()
    assert (box.min > -0.01).all()
    assert (box.max < figure.get_size_inches() + 0.01).all()


def test_titles_legends_and_data_do_not_overlap(figure4):
    for axes in figure4[0].axes:
        legend, title = axes.get_legend().get_window_extent(), axes.title.get_window_extent()
        assert axes.bbox.y1 <= legend.y0
        assert legend.y1 <= title.y0 + 2.5  # the legend's own margin


@pytest.mark.parametrize("name", ["figure3", "figure4"])
def test_files_are_written_and_the_same_each_time(name, of_seeds, figures_of_seeds, tmp_path):
    figure, numbers = figures_of_seeds[name == "figure4"]
    written = figures.save(figure, numbers, tmp_path / "new", name)
    assert [path.name for path in written] == [f"{name}.{s}" for s in ("pdf", "png", "csv")]
    read = pd.read_csv(written[2])
    pd.testing.assert_frame_equal(read, numbers, check_dtype=False)
    draw = getattr(attack_figures, name)
    again = draw(of_seeds[0]) if name == "figure3" else draw(*of_seeds)
    rewritten = figures.save(*again, tmp_path, name)
    assert [path.read_bytes() for path in rewritten] == [path.read_bytes() for path in written]


def test_matplotlib_is_left_as_it_was(figures_of_seeds):
    assert figures_of_seeds[2]


def test_no_jax_and_no_pyplot():
    script = (
        "import vibx.report.attack_figures, sys; "
        "assert not {'jax', 'matplotlib.pyplot'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# Refusals


def objective(attack):
    return attack.run.record["config"]["objective"]["name"]


def test_without_the_deterministic_model_or_vib_there_is_no_figure(attacked):
    zeros, many = attacked
    for missing, words in (("maximum_likelihood", "a deterministic model"), ("vib", "a VIB model")):
        fewer = [[a for a in attacks if objective(a) != missing] for attacks in attacked]
        assert f"no attack on {words}" in refused(attack_figures.figure3, fewer[0])
        assert f"no attack on {words}" in refused(attack_figures.figure4, fewer[0], many)
        assert f"no attack on {words}" in refused(attack_figures.figure4, zeros, fewer[1])
    assert "deterministic" in refused(attack_figures.figure3, [])
    assert "deterministic" in refused(attack_figures.figure4, zeros, [])


@pytest.mark.parametrize(
    ("key", "value"), [("images", [3, 10]), ("target", 2), ("confidence", 1.0), ("rechecks", 5)]
)
def test_attacks_of_other_images_or_settings_are_refused(attacked, key, value):
    def change(given, _):
        (given["attack"] if key in given["attack"] else given)[key] = value

    zeros, many = attacked
    mixed = [*zeros[:-1], edited(zeros[-1], change)]
    assert f"differ in {key}" in refused(attack_figures.figure3, mixed)
    assert f"differ in {key}" in refused(attack_figures.figure4, mixed, many)


def test_zeros_without_one_target_are_refused(attacked):
    def change(given, _):
        given.update(mode="untargeted", target=None)

    untargeted = [edited(attack, change) for attack in attacked[0]]
    assert "the same target" in refused(attack_figures.figure3, untargeted)
    assert "the same target" in refused(attack_figures.figure4, untargeted, attacked[1])


@pytest.mark.parametrize(("key", "value"), [("n", 30), ("samples", 1), ("iterations", 7)])
def test_accuracies_after_other_attacks_are_refused(attacked, key, value):
    def change(given, _):
        (given["attack"] if key in given["attack"] else given)[key] = value

    zeros, many = attacked
    for place in (3, 20):
        mixed = [*many[:place], edited(many[place], change), *many[place + 1 :]]
        assert f"differ in {key}" in refused(attack_figures.figure4, zeros, mixed)


def test_attacks_on_other_models_are_refused(attacked):
    zeros, _ = attacked

    def with_last(change):
        return refused(attack_figures.figure3, [*zeros[:-1], edited(zeros[-1], change)])

    assert "differ in epochs" in with_last(lambda _, config: config.update(epochs=7))
    marginal = {"name": "mixture"}
    assert "differ in marginal" in with_last(lambda _, config: config.update(marginal=marginal))
    penalty = {"name": "confidence_penalty"}
    message = with_last(lambda _, config: config.update(objective=penalty))
    assert "no figure has objective=confidence_penalty" in message


def test_a_model_that_lacks_an_attack_of_another_is_refused(attacked, of_seeds):
    zeros, many = attacked
    gap = next(
        a for a in many if beta_of(a.run) == 1e-3 and a.record["attack"]["mode"] == "untargeted"
    )
    message = refused(attack_figures.figure4, zeros, [a for a in many if a is not gap])
    assert message == (
        "VIB beta=0.001, model seed 0, lacks what another has: the attack with mode=untargeted, "
        "confidence=0, seed=0"
    )
    last = of_seeds[0][-1]
    message = refused(attack_figures.figure3, of_seeds[0][:-1])
    assert f"beta={beta_of(last.run):g}, model seed 1, lacks" in message
    assert "seed=2" in message
    for kappa in (0, 1):
        fewer = [a for a in many if a.record["attack"]["attack"]["confidence"] != kappa]
        message = refused(attack_figures.figure4, zeros, fewer)
        assert message == f"no untargeted attack with confidence={kappa}"
