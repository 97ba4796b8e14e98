"""Tables of made-up runs: the numbers that were put in, the words that follow from them."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from tests.records import write_run
from vibx import experiments, store
from vibx.report import tables
from vibx.store import RunError, StoredAttack

MODELS = ["maximum_likelihood", "dropout", "confidence_penalty", "label_smoothing", "vib"]
NUMBERS = {
    "dropout": {"rate": 0.5},
    "confidence_penalty": {"weight": 1.0},
    "label_smoothing": {"epsilon": 0.01},
}
SPREAD = np.array([0, 2, -1, 3, 1]) * 1e-4  # of a model's errors over five seeds


@pytest.fixture(scope="module")
def in_use():
    """The runs of Table 1 as conf has them."""
    return experiments.expand("table1", scale="smoke")


@pytest.fixture(scope="module")
def configs(in_use):
    """The runs of Table 1 with numbers that the choice of others in conf does not change."""
    return [
        dataclasses.replace(
            cfg,
            objective=dataclasses.replace(cfg.objective, **NUMBERS.get(cfg.objective.name, {})),
        )
        for cfg in in_use
    ]


def of(configs, *, models=MODELS, seeds=range(5)):
    return [cfg for cfg in configs if cfg.objective.name in models and cfg.seed in seeds]


def train(root, configs, *, vib, others, spread=SPREAD):
    """Runs whose errors are those of VIB or of the others, and a little more or less by seed."""
    errors = dict.fromkeys(MODELS, others + spread) | {"vib": vib + spread[::-1]}
    return [write_run(root, cfg, error_mc=errors[cfg.objective.name][cfg.seed]) for cfg in configs]


def validated(configs):
    """The same runs with a part of the training images held out."""
    return [
        dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, validation=10_000))
        for cfg in configs
    ]


def with_optimizer(configs, **changes):
    return [
        dataclasses.replace(cfg, optimizer=dataclasses.replace(cfg.optimizer, **changes))
        for cfg in configs
    ]


# Table 1


def test_table_1_has_the_errors_that_the_runs_have(configs, tmp_path):
    stored = train(tmp_path, configs, vib=0.0121, others=0.0137)
    table = tables.table1(stored)
    assert table["model"].tolist() == [
        "baseline",
        "dropout, rate 0.5",
        "confidence penalty, weight 1",
        "label smoothing, epsilon 0.01",
        "VIB, beta = 1e-3",
    ]
    baseline, vib = table.iloc[0], table.iloc[4]
    assert vib["error_mc_percent"] == pytest.approx(1.21 + 100 * SPREAD.mean())
    half = scipy.stats.t.ppf(0.975, 4) * 100 * SPREAD.std(ddof=1) / np.sqrt(5)
    assert vib["error_mc_high_percent"] - vib["error_mc_percent"] == pytest.approx(half)
    assert (table["seeds"] == 5).all()
    assert table["paper_percent"].tolist() == pytest.approx([1.38, 1.34, 1.36, 1.40, 1.13])
    assert table["pereyra_percent"].tolist()[1:4] == pytest.approx([1.40, 1.17, 1.23])
    assert table["pereyra_percent"].isna().tolist() == [True, False, False, False, True]
    assert baseline["difference_points"] == pytest.approx(0.16)
    assert baseline["difference_low_points"] < 0.16 < baseline["difference_high_points"]
    difference = baseline["only_model_wrong"] - baseline["only_vib_wrong"]
    assert difference == pytest.approx(5 * 0.0016 * 10_000)
    assert vib.filter(regex="difference|paired|_p$|only").isna().all()


@pytest.mark.parametrize(("beta", "text"), [(0.0, "0"), (3e-4, "3e-4"), (1.0, "1e0")])
def test_a_model_is_named_with_its_beta(configs, beta, text):
    cfg = dataclasses.replace(configs[-1], beta=beta)
    assert tables.model_name(cfg.to_dict()) == f"VIB, beta = {text}"


def test_the_order_of_the_runs_does_not_matter(configs, tmp_path):
    stored = train(tmp_path, configs, vib=0.0121, others=0.0137)
    shuffled = [stored[i] for i in np.random.default_rng(0).permutation(len(stored))]
    pd.testing.assert_frame_equal(tables.table1(shuffled), tables.table1(stored))


def test_an_answer_is_that_of_the_averaged_samples(configs, tmp_path):
    stored = train(tmp_path, configs, vib=0.0121, others=0.0137)
    before = tables.table1(stored)
    for run in stored:
        arrays = dict(np.load(run.directory / store.PREDICTIONS))
        arrays["class_1"] = (arrays["labels"] + 1) % 10
        store.write_arrays(run.directory / store.PREDICTIONS, **arrays)
    pd.testing.assert_frame_equal(tables.table1(stored), before)


@pytest.mark.parametrize(
    ("vib", "others", "verdict"),
    [
        (0.01, 0.02, "better than"),
        (0.02, 0.01, "worse than"),
        (0.0125, 0.0125, "not distinguishable from"),
        (0.0125, 0.0126, "not distinguishable from"),  # not beyond these seeds' test images
    ],
)
def test_the_conclusion_follows_the_errors(configs, tmp_path, vib, others, verdict):
    note = tables.table1_note(tables.table1(train(tmp_path, configs, vib=vib, others=others)))
    assert note.startswith(
        f"Is VIB better? VIB is {verdict} baseline, dropout, confidence penalty and label "
        "smoothing. After Holm's correction for the 4 comparisons, the same holds."
    )


@pytest.fixture(scope="module")
def table(configs, tmp_path_factory):
    """A Table 1 whose tests can be replaced."""
    return tables.table1(train(tmp_path_factory.mktemp("runs"), configs, vib=0.0121, others=0.0137))


def with_tests(table, *, differences, crossed_p, paired_t_p, holm_p):
    columns = {
        "difference_points": differences,
        "crossed_p": crossed_p,
        "paired_t_p": paired_t_p,
        "holm_p": holm_p,
    }
    return table.assign(**{name: [*values, np.nan] for name, values in columns.items()})


def test_the_conclusion_takes_both_tests_and_holms_correction(table):
    changed = with_tests(
        table,
        differences=[0.2, 0.2, -0.3, 0.2],
        crossed_p=[0.001, 0.2, 0.001, 0.02],
        paired_t_p=[0.002, 0.001, 0.0001, 0.03],
        holm_p=[0.006, 0.2, 0.004, 0.06],
    )
    assert tables.table1_note(changed).startswith(
        "Is VIB better? VIB is better than baseline and label smoothing; worse than confidence "
        "penalty; not distinguishable from dropout. After Holm's correction for the 4 "
        "comparisons, VIB is better than baseline; worse than confidence penalty; not "
        "distinguishable from dropout and label smoothing."
    )


def test_holms_correction_is_of_the_larger_p(table):
    larger = np.maximum(table["crossed_p"], table["paired_t_p"])[:4]
    smallest = larger.idxmin()
    assert table["holm_p"][smallest] == pytest.approx(4 * larger[smallest])
    assert table["holm_p"].max() >= larger.max()


def test_the_files_of_table_1(configs, tmp_path):
    stored = train(tmp_path, configs, vib=0.0121, others=0.0137)
    paths = tables.write_table1(stored, tmp_path / "drawn")
    assert [path.name for path in paths] == ["table1.csv", "table1.md", "table1.tex"]
    table = tables.table1(stored)
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), table, check_dtype=False, rtol=1e-5)
    text = paths[1].read_text()
    assert "mnist, K = 256, recipe fast, 4 epochs" in text
    assert "| dropout, rate 0.5 | 1.38 [1.36, 1.40] | 1.34 | 1.40 | 0.16 [" in text
    assert text.endswith(f"{tables.table1_note(table)}\n")


def test_the_latex_is_well_formed(configs, tmp_path):
    stored = train(tmp_path, configs, vib=0.0137, others=0.0121)
    text = tables.write_table1(stored, tmp_path)[2].read_text()
    assert not re.search(r"(?<!\\)[%#_]", text)
    assert text.count("{") == text.count("}")
    assert re.findall(r"\\begin{(\w+)}", text) == ["table", "tabular"]
    assert re.findall(r"\\end{(\w+)}", text) == ["tabular", "table"]
    outside_math = "".join(text.split("$")[::2])
    assert text.count("$") % 2 == 0
    assert not re.search(r"[<>^]", outside_math)  # < and > are other characters in text
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    table_rows = [line for line in body.splitlines() if "&" in line]
    assert len(table_rows) == 6
    assert all(line.count("&") == 4 and line.endswith(r" \\") for line in table_rows)
    assert r"VIB, $\beta$ = $10^{-3}$ & 1.38 [1.36, 1.40] & 1.13 & -- & -- \\" in text
    assert "$-$0.16 [" in text


# Runs that do not make a table


def refused(stored, message):
    with pytest.raises(RunError, match=message) as caught:
        tables.table1(stored)
    assert "\n" not in str(caught.value)


def test_runs_of_two_scales_are_refused(configs, tmp_path):
    longer = dataclasses.replace(configs[-1], epochs=200)
    other_optimizer = with_optimizer(configs[-1:], learning_rate=0.5)[0]
    stored = train(tmp_path, [*configs[:-1], longer], vib=0.01, others=0.02)
    refused(stored, f"{configs[0].run_id} and {longer.run_id} differ in epochs")
    other = write_run(tmp_path, other_optimizer)
    refused([*stored[:-1], other], f"{other_optimizer.run_id} differ in optimizer")


def test_a_model_too_few_or_too_many_is_refused(configs, tmp_path):
    stored = train(tmp_path, configs, vib=0.01, others=0.02)
    refused(stored[5:], "these runs are of dropout, rate 0.5; confidence penalty")
    other_beta = write_run(tmp_path, dataclasses.replace(configs[-1], beta=1e-2))
    refused([*stored, other_beta], "VIB, beta = 1e-3; VIB, beta = 1e-2")


def test_seeds_are_the_same_and_at_least_two(configs, tmp_path):
    stored = train(tmp_path, configs, vib=0.01, others=0.02)
    without = [run for run in stored if run.record["run_id"] != configs[5].run_id]
    refused(without, r"baseline has seeds \[0, 1, 2, 3, 4\], dropout, rate 0.5 has \[1, 2, 3, 4\]")
    refused([run for run in stored if run.record["config"]["seed"] == 3], "at least two")
    refused([*stored, stored[0]._replace(directory=tmp_path / "copy")], "same model and seed")


def test_runs_without_test_errors_are_refused(configs, tmp_path):
    refused(train(tmp_path, validated(configs), vib=0.01, others=0.02), "has no test error")


def test_predictions_are_there_and_of_the_same_images(configs, tmp_path):
    stored = train(tmp_path, configs, vib=0.01, others=0.02)
    path = stored[7].directory / store.PREDICTIONS
    arrays = dict(np.load(path))
    store.write_arrays(path, **{name: array[::-1] for name, array in arrays.items()})
    refused(stored, f"{configs[7].run_id}: its test images are not those")
    path.unlink()
    refused(stored, f"{configs[7].run_id}/predictions.npz: missing")


# Selections


def test_selections_mark_the_best_value_and_the_one_in_use(in_use, tmp_path):
    rate = of(in_use, models=["dropout"])[0].objective.rate
    means = {rate / 4: 0.0150, rate / 2: 0.0130, rate: 0.0135}
    stored = [
        write_run(
            tmp_path,
            dataclasses.replace(cfg, objective=dataclasses.replace(cfg.objective, rate=rate)),
            error_mc=mean + SPREAD[cfg.seed],
        )
        for rate, mean in means.items()
        for cfg in validated(of(in_use, models=["dropout"], seeds=range(3)))
    ]
    table = tables.selections({"select_dropout": stored}).set_index("value")
    for value, mean in means.items():
        expected = 100 * (mean + SPREAD[:3].mean())
        assert table["validation_error_mc_percent"][value] == pytest.approx(expected)
    assert table.index[table["best"]].tolist() == [rate / 2]
    assert table.index[table["in_use"]].tolist() == [rate]
    assert (table["seeds"] == 3).all()
    paths = tables.write_selections({"select_dropout": stored}, tmp_path)
    assert [path.name for path in paths] == ["selections.csv", "selections.md"]
    text = paths[1].read_text()
    assert re.search(rf"rate {rate / 2:g} \| 1.30 \[.*\] \| 3 \| best \|\n", text)
    assert re.search(rf"rate {rate:g} \| 1.35 \[.*\] \| 3 \| in use \|\n", text)


def test_selections_are_made_on_validation_images(configs, tmp_path):
    stored = train(tmp_path, of(configs, models=["dropout"]), vib=0.01, others=0.02)
    with pytest.raises(RunError, match="has no validation error"):
        tables.selections({"select_dropout": stored})


# Recipes


def test_recipes_side_by_side(configs, tmp_path):
    few = of(configs, models=["maximum_likelihood", "vib"], seeds=[0, 1, 3])
    few = with_optimizer(few, name="author", schedule="constant")
    spread = SPREAD + np.array([0.0001, 0.0003, 0, 0.0002, 0])
    stored = {
        "long": train(tmp_path, few, vib=0.0120, others=0.0130),
        "short": train(tmp_path, configs, vib=0.0125, others=0.0135, spread=spread),
    }
    table = tables.recipes(stored).set_index("model")
    assert table.index.tolist() == [tables.model_name(cfg.to_dict()) for cfg in configs[::5]]
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
    text = tables.write_recipes(stored, tmp_path)[1].read_text()
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
        tables.recipes(stored)


def test_a_recipe_of_one_seed_has_no_interval(configs, tmp_path):
    stored = {"smoke": [write_run(tmp_path, configs[0], error_mc=0.0131)]}
    text = tables.write_recipes(stored, tmp_path)[1].read_text()
    assert "| baseline | 1.31 (1) |" in text


# The audit


def test_the_audit_is_a_table_per_run_with_failed_checks_in_bold(tmp_path, in_use):
    run = write_run(tmp_path, of(in_use, models=["vib"], seeds=[0])[0])
    check = {"expected": "at most 1%", "measured": "0.4%", "meaning": "It holds.", "values": {}}
    checks = [
        {"name": "norm budget", "passed": True, **check},
        {"name": "black box", "passed": False, **check},
    ]
    record = {"run_id": run.record["run_id"], "attack": {"n": 50}, "checks": checks}
    written = tables.write_audit([StoredAttack(run, tmp_path, record)], tmp_path / "drawn")
    assert [path.name for path in written] == ["audit.csv", "audit.md"]
    assert list(pd.read_csv(written[0])["passed"]) == [True, False]
    text = written[1].read_text()
    assert "**VIB, beta = 1e-3**, the first 50 test images: 1 of 2 checks passed." in text
    assert "| norm budget | at most 1% | 0.4% | yes | It holds. |" in text
    assert "| black box | at most 1% | 0.4% | **no** | It holds. |" in text
