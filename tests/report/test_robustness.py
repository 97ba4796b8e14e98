"""The drawing of robustness from made-up attacks: its ratios, its tables, what it refuses."""

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest

from tests.records import write_attack, write_run
from tests.report.attack_records import BETAS, MODES, edited, robust
from tests.report.figure_runs import points, refused
from vibx import experiments
from vibx.report import statistics
from vibx.report.drawings import Source, robustness, robustness_seed0

SEEDS = 0, 1, 2
EXPERIMENTS = "figure4_expected", "early_abort"
PIXELS = 100  # that change, so that the norm is ten times the change


def size(run, mode, seed):
    """Of each changed pixel: VIB is up to 20% nearer where it is untargeted, else farther."""
    factor = 1 + 0.2 * robust(run) * (1 if mode == "targeted" else -1)
    return 0.2 * factor * (1 + 0.01 * seed)


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 500)
        yield


@pytest.fixture(scope="module")
def found(grids, tmp_path_factory):
    """Attacks of all three experiments by their names, on models of three seeds."""
    root = tmp_path_factory.mktemp("runs")
    attacks = {
        name: list(dict.fromkeys(cfg for _, cfg in experiments.expand_attacks(name, scale="smoke")))
        for name in EXPERIMENTS
    }
    runs = [
        write_run(root, dataclasses.replace(cfg, seed=seed)) for cfg in grids[0] for seed in SEEDS
    ]
    found = {name: [] for name in EXPERIMENTS}
    for run in runs:
        config = run.record["config"]
        for cfg in attacks["figure4_expected"]:
            if config["objective"]["name"] != "dropout":
                made = size(run, cfg.mode, config["seed"])
                attack = write_attack(run, cfg, size=made, pixels=PIXELS, held=0.5)
                found["figure4_expected"].append(attack)
        if config["seed"] == 0:
            for cfg in attacks["early_abort"]:
                factor = 1 + 0.3 * robust(run) * cfg.attack.abort_early
                attack = write_attack(run, cfg, size=0.2 * factor, pixels=PIXELS, held=0)
                found["early_abort"].append(attack)
    return found


@pytest.fixture(scope="module")
def expected(found):
    return robustness.expected_table(found["figure4_expected"])


@pytest.fixture(scope="module")
def abort(found):
    return robustness.abort_table(found["early_abort"])


@pytest.mark.parametrize("mode", MODES)
def test_ratios_are_to_the_deterministic_model_of_the_same_mode(expected, mode):
    rows = expected[expected["mode"] == mode]
    assert list(rows["model"]) == ["deterministic", *["VIB"] * 4]
    np.testing.assert_array_equal(rows["beta"], [np.nan, *BETAS])
    sign = 1 if mode == "targeted" else -1
    far = [0, 1 / 4, 1 / 4 + 1 / 12, 3 / 4, 1 - 2 / 12]  # `robust`, by hand
    np.testing.assert_allclose(rows["ratio"], 1 + 0.2 * sign * np.array(far), atol=2e-3)
    assert (rows["ratio_low"] <= rows["ratio"]).all()
    assert (rows["ratio"] <= rows["ratio_high"]).all()
    assert (rows["ratio_high"] - rows["ratio_low"]).max() < 0.05
    assert (rows["seeds"] == 3).all()
    assert (rows["images"] == 10).all()


def test_success_is_that_of_the_records(expected):
    np.testing.assert_allclose(expected["success_percent"], 50)
    np.testing.assert_allclose(expected["seen_percent"], 100)
    in_vib = expected["model"] == "VIB"
    np.testing.assert_allclose(expected.loc[in_vib, "goal_probability_percent"], 45)
    assert expected.loc[~in_vib, "goal_probability_percent"].isna().all()


def test_images_without_success_count_as_infinitely_far(found):
    """Six of ten fail: the median is not that of the four."""
    some = [a for a in found["figure4_expected"] if a.run.record["config"]["seed"] == 0]
    (last,) = [a for a in some if a.record["attack"]["mode"] == "targeted"][-1:]
    cfg = next(
        cfg
        for _, cfg in experiments.expand_attacks("figure4_expected", scale="smoke")
        if cfg.mode == "targeted"
    )
    directory = last.run.directory.with_name("failed")
    failed = write_attack(last.run._replace(directory=directory), cfg, seen=0.4)
    others = [attack for attack in some if attack is not last]
    table = robustness.expected_table([*others, failed])
    assert np.isinf(table["l2_median"]).sum() == 1
    assert np.isinf(table["ratio"]).sum() == 1
    assert table["seen_percent"].min() == 40


def test_the_abort_is_set_beside_none(abort):
    vib = abort[abort["model"] == "VIB"]
    np.testing.assert_array_equal(vib["beta"], BETAS)
    far = np.array([1 / 4, 1 / 4 + 1 / 12, 3 / 4, 1 - 2 / 12])
    np.testing.assert_allclose(vib["l2_ratio_with"], 1 + 0.3 * far, atol=2e-3)
    np.testing.assert_allclose(vib["linf_ratio_with"], 1 + 0.3 * far, atol=2e-3)
    np.testing.assert_allclose(vib["l2_ratio_without"], 1)
    assert (abort["hold_with"] == 0).all()
    assert (abort["seen_without"] == 10).all()


@pytest.mark.usefixtures("not_laid_out")
def test_both_panels_show_the_tables(expected, abort):
    left, right = robustness.robustness(expected, abort).axes
    rows = expected[(expected["model"] == "VIB") & (expected["mode"] == "untargeted")]
    lines = {line.get_label(): line for line in (*left.lines, *right.lines)}
    np.testing.assert_array_equal(points(lines["untargeted attacks"]), rows[["beta", "ratio"]])
    for (norm, name), (label, _) in robustness.ABORT_LOOKS.items():
        of_vib = abort[abort["model"] == "VIB"]
        drawn = points(lines[label])
        np.testing.assert_array_equal(drawn, of_vib[["beta", f"{norm}_ratio_{name}"]])
    for axes in (left, right):
        assert [1, 1] in [list(line.get_ydata()) for line in axes.lines]
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        assert legend == [label for label in lines if label in legend]


@pytest.mark.usefixtures("sketched", "not_laid_out")
def test_files_say_what_was_counted_and_of_how_many(found, expected, abort):
    files = robustness.draw(Source("fast", found))
    assert list(files) == [
        *(f"robustness.{suffix}" for suffix in ("pdf", "png", "csv", "md")),
        "robustness_abort.csv",
    ]
    text = files["robustness.md"].decode()
    assert "scale fast: 10 test images, 3 execution(s) of each model" in text
    assert "15 of 20 independent answers" in text
    row = expected.iloc[-1]
    interval = f"{row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]"
    assert f"| untargeted | VIB | 1e-2 | {row['l2_median']:.2f} | {interval} | 50.00 | 45" in text
    assert "10 images to class 1, kappa = 0" in text
    for name, table in {"robustness": expected, "robustness_abort": abort}.items():
        read = pd.read_csv(io.BytesIO(files[f"{name}.csv"]))
        np.testing.assert_allclose(
            read.select_dtypes("number"), table.select_dtypes("number"), rtol=1e-5
        )
    assert robustness.draw(Source("fast", found)) == files


def test_models_of_one_seed_have_a_table_of_their_own(found, expected):
    some = [a for a in found["figure4_expected"] if a.run.record["config"]["seed"] == 0]
    files = robustness_seed0.draw(Source("paper", {"figure4_expected_seed0": some}))
    assert list(files) == ["robustness_seed0.csv", "robustness_seed0.md"]
    assert b"scale paper: 10 test images, 1 execution(s)" in files["robustness_seed0.md"]
    read = pd.read_csv(io.BytesIO(files["robustness_seed0.csv"]))
    assert (read["seeds"] == 1).all()
    assert len(read) == len(expected)


def test_attacks_with_one_vote_and_of_other_settings_are_refused(found):
    many = found["figure4_expected"]

    def alone(given, _):
        given["attack"].update(votes=1, votes_needed=1)

    message = refused(robustness.expected_table, [edited(attack, alone) for attack in many])
    assert "attack.votes > 1" in message
    mixed = [*many[:-1], edited(many[-1], alone)]
    assert "differ in votes, votes_needed" in refused(robustness.expected_table, mixed)
    assert "lacks" in refused(robustness.expected_table, many[:-1])


def test_a_model_needs_both_attacks_of_the_same_settings(found):
    *others, last = found["early_abort"]
    assert "lacks its attack" in refused(robustness.abort_table, others)
    longer = edited(last, lambda given, _: given["attack"].update(iterations=7))
    assert "differ in iterations" in refused(robustness.abort_table, [*others, longer])
