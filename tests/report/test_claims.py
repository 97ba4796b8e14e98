"""The ledger: each claim on made-up records, its verdicts, its command, its files."""

import functools
import io
import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from tests.report import claim_records
from tests.report.claim_records import FALSE, TRUE
from vibx import config, experiments, files, store
from vibx.report import ledger, statistics
from vibx.report.claims import figure2
from vibx.report.drawings import Source, claims
from vibx.report.ledger import (
    FAILS,
    HOLDS,
    UNDECIDED,
    UNTESTED,
    Claim,
    Measured,
    Needed,
    Range,
    verdict,
)
from vibx.report.statistics import Interval
from vibx.robustness.config import parse_attack_config

CLAIMS = ledger.find()
EACH = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
PRINTED = "posteriors_widen_as_printed"  # the contrary of another claim
LITERAL = "accurate_unperturbed"  # about these very models and images: it is told of any


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 500)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Records of three seeds by world and experiment."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", lambda file: None)  # hundreds of files
        patch.setattr(files.np, "savez_compressed", np.savez)
        for world in (TRUE, FALSE):
            trained = claim_records.train(tmp_path_factory.mktemp("runs"), world)
            found[world] = trained | claim_records.attack(trained, world)
    return found


@pytest.fixture(scope="module", autouse=True)
def each_file_is_read_once():
    read, found = store.read_arrays, {}

    def read_once(stored, name):
        path = stored.directory / name
        if path not in found:
            found[path] = read(stored, name)
        return found[path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "read_arrays", read_once)
        yield


@pytest.fixture(scope="module")
def decided(worlds):
    """The row of a claim in a world."""
    return functools.cache(lambda claim, world: row(claim, worlds[world]))


def run_of(record):
    return getattr(record, "run", record)


def of_seeds(found, *seeds):
    """The records of models of these seeds."""
    return {
        name: [r for r in records if run_of(r).record["config"]["seed"] in seeds]
        for name, records in found.items()
    }


def row(claim, found):
    """The row that `vibx figures` writes of a claim on records, of which none is missing."""
    missing = {name: [] for name in found}
    return claims.row(claim, [Source("smoke", found, missing)])


# Verdicts


@pytest.mark.parametrize(
    ("interval", "seeds", "expected"),
    [
        ((1.1, 1.3), 3, HOLDS),
        ((0.7, 0.9), 3, FAILS),
        ((2.1, 2.3), 3, FAILS),
        ((0.9, 1.1), 3, UNDECIDED),
        ((0.9, 2.1), 3, UNDECIDED),
        ((np.nan, np.nan), 3, UNDECIDED),
        ((1.1, 1.3), 2, UNDECIDED),
        (None, 3, HOLDS),
    ],
)
def test_a_verdict_is_where_the_whole_interval_lies(interval, seeds, expected):
    needs = (Needed("figure1"),)
    claim = Claim("name", "4.1", "", "", "bits", Range(1, 2), needs, len, least_seeds=3)
    measured = Measured(1.2, interval and Interval(*interval), seeds)
    assert verdict(claim, measured) == expected
    assert verdict(claim, None) == UNTESTED


@EACH
def test_a_claim_holds_of_records_as_the_paper_has_them(decided, claim):
    assert decided(claim, TRUE)["verdict"] == (FAILS if claim.name == PRINTED else HOLDS)


@EACH
def test_a_claim_does_not_hold_of_others(decided, claim):
    assert decided(claim, FALSE)["verdict"] == (HOLDS if claim.name == PRINTED else FAILS)


@EACH
def test_seeds_that_contradict_each_other_tell_nothing(worlds, claim):
    one, other = of_seeds(worlds[TRUE], 0), of_seeds(worlds[FALSE], 1)
    both = {name: one[name] + other[name] for name in one}
    assert row(claim, both)["verdict"] == (FAILS if claim.name == LITERAL else UNDECIDED)


@EACH
def test_without_records_or_with_one_missing_a_claim_is_not_tested(worlds, claim):
    found = worlds[TRUE]
    nothing = {name: [] for name in found}
    assert claims.row(claim, [])["verdict"] == UNTESTED
    assert claims.row(claim, [Source("smoke", nothing, nothing)])["verdict"] == UNTESTED
    needed = claim.needs[-1]
    records = found[needed.experiment]
    (first, *_) = needed.among([claims.settings(record) for record in records])
    if needed.experiment in ("figure3", "figure4", "mean_mode", "figure4_expected"):
        parsed = parse_attack_config
    else:
        parsed = config.parse_config
    missing = nothing | {needed.experiment: [parsed(claims.settings(records[first]))]}
    assert claims.row(claim, [Source("smoke", found, missing)])["verdict"] == UNTESTED


@EACH
def test_a_single_seed_tells_what_asks_for_no_more(worlds, claim):
    alone = row(claim, of_seeds(worlds[TRUE], 0))
    assert alone["seeds"] == 1
    if claim.least_seeds > 1:
        assert alone["verdict"] == UNDECIDED
    elif claim.name != PRINTED:
        assert alone["verdict"] in (HOLDS, UNDECIDED)  # ten attacked images say little


# What a claim states


def test_the_ledger_is_long_and_each_row_has_its_name():
    assert len(CLAIMS) >= 25
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


@EACH
def test_a_claim_says_where_it_stands_and_where_it_holds(claim):
    assert re.fullmatch(
        r"4(\.[12](\.\d)?)?(, (Table|Figure) \d(\([a-d]\))?( caption)?)?", claim.where
    )
    assert claim.says.endswith(".")
    assert claim.decided_by
    assert claim.holds.low < claim.holds.high
    assert np.isfinite(claim.holds).any()
    assert claim.unit in ledger.FACTORS
    assert claim.needs
    assert {needed.experiment for needed in claim.needs} <= set(claims.DRAWING.experiments)


@functools.cache
def grid_of(command, *overrides):
    with initialize_config_dir(str(config.directory(command)), version_base="1.3"):
        return compose(command, list(overrides), return_hydra_config=True).hydra.sweeper.params


NEEDED = sorted({needed for claim in CLAIMS for needed in claim.needs})


@pytest.mark.parametrize("needed", NEEDED, ids=str)
def test_the_command_makes_the_records_that_are_needed(needed):
    """Composed as the shell does; what `only` leaves of the grid has every value once."""
    vibx, command, experiment, *only, scale = needed.command("smoke").split()
    assert vibx == "vibx"
    assert command == experiments.command_of(needed.experiment)
    grid = grid_of(command, experiment, scale)
    swept = {key: values.split(",") for key, _, values in (o.partition("=") for o in only)}
    assert swept.keys() <= grid.keys()
    if command == "train":
        configs = experiments.expand(needed.experiment, scale="smoke")
    else:
        attacks = experiments.expand_attacks(needed.experiment, scale="smoke")
        configs = [attack for _, attack in attacks]
    chosen = [configs[i] for i in needed.among([c.to_dict() for c in configs])]
    share = np.prod([len(v) / len(str(grid[k]).split(",")) for k, v in swept.items()])
    assert len(chosen) == pytest.approx(share * len(configs))


def test_the_command_of_a_row_completes_it_from_training_to_drawings(vibx, tmp_path):
    claim = next(claim for claim in CLAIMS if claim.name == "figure2a_err_1")
    done = vibx(*claim.needs[0].command("smoke").split()[1:], "root=runs")
    assert done.returncode == 0, done.stderr
    drawn = vibx("figures", "root=runs", "scale=smoke")
    assert "Claims, scale=smoke: " in drawn.stdout
    assert "Figure 2, why, scale=smoke: " in drawn.stdout
    table = pd.read_csv(tmp_path / "outputs" / "figures" / "claims.csv").set_index("claim")
    assert table.loc[claim.name, "verdict"] != UNTESTED
    assert table.loc[claim.name, "value"] < 75  # it learns: chance is 90
    assert table.loc["figure2b_err_1", "verdict"] == UNTESTED


# Measures by hand


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("table1_vib", 1.13),
        ("vib_better_than_dropout", 1.34 - 1.13),
        ("confidence_penalty_hyperparameters", 2.0 - 1.3),
        ("error_shoots_up_one_sample", 0.2 / 0.02),
        ("rate_at_the_rise", 3),
        ("too_few_bits_for_ten_classes", 20),
        ("overfits_at_small_beta", 1.5),
        ("averaging_helps", 0.5),
        ("spike_is_underfitting", 14.5),
        ("test_information_falls", 0.04),
        ("more_information_overfits", 0.11 - 0.03),
        ("best_beta", 1.1 - 1.4),
        ("rate_of_the_best", 12),
        ("k2_is_much_worse", 3.18 / 1.13),
        ("k2_larger_gap", 0.3 / np.mean([0.11] * 7 + [0.07, 0.05, 0.04, 0.03])),
        ("posteriors_widen", 0.2 / 1.0 * 5 * 5),
        ("posteriors_widen_as_printed", 0.1),
        ("collapse", 0.05),
        ("intermediate_beta_still_good", 3.44 / 3.18),
        ("evaluation_is_consistent", 90),
        ("mean_mode_is_the_same", 0),
        ("adversary_often_fails_seen", 50),
        ("adversary_often_fails_reevaluated", 100),
        ("accurate_unperturbed", 98.5),
        ("vib_more_accurate_seen", 50),
        ("vib_more_accurate_reevaluated", 55),
        ("untargeted_easier_to_resist", 9),
        ("targeted_needs_more", 1.5),
    ],
)
def test_measures_by_hand(decided, name, expected):
    claim = next(claim for claim in CLAIMS if claim.name == name)
    assert decided(claim, TRUE)["value"] == pytest.approx(expected)


def test_the_objective_is_compared_with_the_least_in_nats(decided):
    """0.278 nats at beta = 0.1, of two dimensions and any covariance."""
    claim = next(claim for claim in CLAIMS if claim.name == "spike_is_the_objectives")
    expected = math.log2(10) - 3.21 + 0.1 * 3 - 0.278 / math.log(2)
    assert decided(claim, TRUE)["value"] == pytest.approx(expected, abs=1e-3)


def test_the_overlap_is_that_of_its_definition():
    rng = np.random.default_rng(1)
    labels, cholesky = rng.integers(3, size=60), rng.normal(size=(60, 2, 2))
    means = rng.normal(size=(60, 2)) + labels[:, None]
    embedding = {"labels": labels, "means": means, "cholesky": cholesky}
    rows = rng.integers(60, size=60)
    within = between = 0.0
    for row in rows:
        centre = means[rows][labels[rows] == labels[row]].mean(axis=0)
        within += np.trace(cholesky[row] @ cholesky[row].T) + np.sum((means[row] - centre) ** 2)
        between += np.sum((centre - means[rows].mean(axis=0)) ** 2)
    weights = np.bincount(rows, minlength=60).astype(float)
    assert figure2.overlap(embedding, weights) == pytest.approx(within / between)
    np.testing.assert_allclose(
        figure2.overlap(embedding, np.stack([weights, np.ones(60)]))[0], within / between
    )


# Scales and files


def test_a_claim_is_decided_at_the_largest_scale_that_is_complete(worlds):
    claim = next(claim for claim in CLAIMS if claim.name == "table1_vib")
    true, nothing = worlds[TRUE], {name: [] for name in worlds[TRUE]}
    vib = next(r for r in true["table1"] if r.record["config"]["objective"]["name"] == "vib")
    gap = nothing | {"table1": [config.parse_config(vib.record["config"])]}
    fast = Source("fast", worlds[FALSE], nothing)
    assert claims.row(claim, [Source("paper", true, nothing), fast])["scale"] == "paper"
    row = claims.row(claim, [Source("paper", true, gap), fast])
    assert (row["scale"], row["verdict"]) == ("fast", FAILS)
    assert row["command"] == "vibx train experiment=table1 objective=vib scale=fast"
    baseline = next(claim for claim in CLAIMS if claim.name == "table1_maximum_likelihood")
    assert claims.row(baseline, [Source("paper", true, gap), fast])["scale"] == "paper"


def test_files_are_the_same_each_time_and_count_their_verdicts(worlds):
    nothing = {name: [] for name in worlds[FALSE]}
    few = {name: worlds[FALSE][name] for name in ("table1", "figure2")}
    source = Source("smoke", nothing | few, nothing)
    files = claims.draw(source)
    assert files == claims.draw(source)
    table = pd.read_csv(io.BytesIO(files["claims.csv"]))
    assert list(table["claim"]) == [claim.name for claim in CLAIMS]
    counts = table["verdict"].value_counts()
    text = files["claims.md"].decode()
    assert (
        f"Of {len(CLAIMS)}, {counts[HOLDS]} hold, {counts[FAILS]} do not, 0 cannot be told, "
        f"{counts[UNTESTED]} are not tested." in text
    )
    rows = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line[:3] == "| 4"]
    assert len(rows) == len(CLAIMS)
    assert {len(cells) for cells in rows} == {9}
    for command in itertools.chain(*(c.split("; ") for c in table["command"])):
        experiment = re.search(r"experiment=\w+", command)[0]
        assert f"{experiment} scale=smoke" in text or f"{experiment} scale=fast" in text
