"""Table 1 of made-up runs: the errors that were put in, the words that follow from them."""

import dataclasses
import io
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from tests.records import with_arrays, write_run
from tests.report.table_runs import SPREAD, train, validated, with_optimizer
from vibx import store
from vibx.report.drawings import Source, table1
from vibx.store import RunError


@pytest.fixture(scope="module")
def stored(configs, tmp_path_factory):
    """Runs that are not to be written to."""
    return train(tmp_path_factory.mktemp("runs"), configs, vib=0.0121, others=0.0137)


@pytest.fixture(scope="module")
def table(stored):
    return table1.table1(stored)


def test_table_1_has_the_errors_that_the_runs_have(table):
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


def test_the_order_of_the_runs_does_not_matter(stored, table):
    shuffled = [stored[i] for i in np.random.default_rng(0).permutation(len(stored))]
    pd.testing.assert_frame_equal(table1.table1(shuffled), table)


def test_an_answer_is_that_of_the_averaged_samples(stored, table, tmp_path):
    changed = []
    for run in stored:
        arrays = store.read_arrays(run, store.PREDICTIONS)
        arrays["class_1"] = (arrays["labels"] + 1) % 10
        directory = tmp_path / run.directory.name
        changed.append(with_arrays(run, store.PREDICTIONS, arrays, directory=directory))
    pd.testing.assert_frame_equal(table1.table1(changed), table)


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
    note = table1.conclusions(table1.table1(train(tmp_path, configs, vib=vib, others=others)))
    assert note.startswith(
        f"Is VIB better? VIB is {verdict} baseline, dropout, confidence penalty and label "
        "smoothing. After Holm's correction for the 4 comparisons, the same holds."
    )


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
    assert table1.conclusions(changed).startswith(
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


def test_the_files_of_table_1(stored, table):
    files = table1.draw(Source("smoke", {"table1": stored}))
    assert list(files) == ["table1.csv", "table1.md", "table1.tex"]
    read = pd.read_csv(io.BytesIO(files["table1.csv"]))
    pd.testing.assert_frame_equal(read, table, check_dtype=False, rtol=1e-5)
    text = files["table1.md"].decode()
    assert "mnist, K = 256, scale smoke (recipe fast, 4 epochs)" in text
    assert "| dropout, rate 0.5 | 1.38 [1.36, 1.40] | 1.34 | 1.40 | 0.16 [" in text
    assert text.endswith(f"{table1.conclusions(table)}\n")


def test_the_latex_is_well_formed(configs, tmp_path):
    stored = train(tmp_path, configs, vib=0.0137, others=0.0121)
    text = table1.draw(Source("smoke", {"table1": stored}))["table1.tex"].decode()
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
        table1.table1(stored)
    assert "\n" not in str(caught.value)


def test_runs_of_two_scales_are_refused(configs, tmp_path):
    longer = dataclasses.replace(configs[-1], epochs=200)
    other_optimizer = with_optimizer(configs[-1:], learning_rate=0.5)[0]
    stored = train(tmp_path, [*configs[:-1], longer], vib=0.01, others=0.02)
    refused(stored, f"{configs[0].run_id} and {longer.run_id} differ in epochs")
    other = write_run(tmp_path, other_optimizer)
    refused([*stored[:-1], other], f"{other_optimizer.run_id} differ in optimizer")


def test_a_model_too_few_or_too_many_is_refused(stored, configs, tmp_path):
    refused(stored[5:], "these runs are of dropout, rate 0.5; confidence penalty")
    other_beta = write_run(tmp_path, dataclasses.replace(configs[-1], beta=1e-2))
    refused([*stored, other_beta], "VIB, beta = 1e-3; VIB, beta = 1e-2")


def test_seeds_are_the_same_and_at_least_two(stored, configs, tmp_path):
    without = [run for run in stored if run.record["run_id"] != configs[5].run_id]
    refused(without, r"baseline has seeds \[0, 1, 2, 3, 4\], dropout, rate 0.5 has \[1, 2, 3, 4\]")
    refused([run for run in stored if run.record["config"]["seed"] == 3], "at least two")
    refused([*stored, stored[0]._replace(directory=tmp_path / "copy")], "same model and seed")


def test_runs_without_test_errors_are_refused(configs, tmp_path):
    refused(train(tmp_path, validated(configs), vib=0.01, others=0.02), "has no test error")


def test_predictions_are_there_and_of_the_same_images(configs, tmp_path):
    stored = train(tmp_path, configs, vib=0.01, others=0.02)
    arrays = store.read_arrays(stored[7], store.PREDICTIONS)
    backwards = {name: array[::-1] for name, array in arrays.items()}
    stored[7] = with_arrays(stored[7], store.PREDICTIONS, backwards)
    refused(stored, f"{configs[7].run_id}: its test images are not those")
    (stored[7].directory / store.PREDICTIONS).unlink()
    refused(stored, f"{configs[7].run_id}/predictions.npz: missing")
