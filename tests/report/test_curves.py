"""Curves of accuracy against the budget from made-up attacks: what stands in them."""

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest

from tests.records import CLASSES, write_attack, write_run
from tests.report.attack_records import edited
from tests.report.figure_runs import refused
from vibx import experiments, store
from vibx.report import attacked, style
from vibx.report.drawings import Source, curves
from vibx.store import StoredAttack

NORMS = "l2", "linf"
ANSWERS = 100
KINDS = ("20 noise samples", "100 noise samples", "known noise, re-evaluated")


def left(cfg, n):
    """How many answers to each image are right after an attack.

    Images fall one after the other as the budget grows; 20 samples spare image 1, 100 image 2.
    """
    spared = {20: 1, 100: 2, None: 3}[cfg.attack.noise_samples]
    share = cfg.attack.epsilon / (2 if cfg.attack.norm == "l2" else 0.2)
    fallen = (np.arange(n) < round(share * n)) & (np.arange(n) != spared)
    return np.where(fallen, 30, 80)


def attack(run, cfg):
    votes = np.zeros((cfg.n, CLASSES), int)
    right = left(cfg, cfg.n)
    votes[np.arange(cfg.n), np.arange(cfg.n) % CLASSES] = right
    votes[np.arange(cfg.n), (np.arange(cfg.n) + 1) % CLASSES] = ANSWERS - right
    written = write_attack(run, cfg, votes=votes)
    seen = None if cfg.attack.noise_samples else 0.25
    record = store.write_record(written.directory, {**written.record, "accuracy_seen": seen})
    return StoredAttack(run, written.directory, record)


def write(root, *, seeds=(0,)):
    """The attacks of both norms on the deterministic model and on VIB."""
    trained = experiments.expand("table1", scale="smoke") + experiments.expand(
        "robustness", scale="smoke"
    )
    models = [c for c in trained if c.objective.name == "maximum_likelihood" and c.seed == 1][:1]
    models += [c for c in dict.fromkeys(trained) if c.beta in (0, 1e-3) and c.seed == 1]
    stored = [write_run(root, cfg) for cfg in dict.fromkeys(models)]
    found = {}
    for norm in NORMS:
        grid = experiments.expand_attacks(f"curves_{norm}", scale="smoke")
        attacks = dict.fromkeys(cfg for _, cfg in grid)
        found[norm] = [
            attack(run, dataclasses.replace(cfg, seed=seed))
            for run in stored
            for cfg in attacks
            for seed in seeds
        ]
    return found


@pytest.fixture(scope="module")
def attacks(tmp_path_factory):
    return write(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def drawn(attacks):
    return curves.curves(*attacks.values())


def curve(table, panel, name):
    rows = table.query("panel == @panel and curve == @name")
    return dict(zip(rows["x"], rows["y"], strict=True))


@pytest.mark.parametrize(("panel", "largest"), [("a", 2), ("b", 0.2)])
def test_worst_case_is_image_by_image(drawn, panel, largest):
    """With the largest budget each attack spares an image of its own, and together none."""
    table = drawn[1]
    for model in ("baseline", "VIB, beta = 0", "VIB, beta = 1e-3"):
        for kind in KINDS:
            points = curve(table, panel, f"{model}, {kind}")
            assert points[0] == 1
            assert points[largest] == 0.1
        assert curve(table, panel, f"{model}, worst case")[largest] == 0
        shares = curve(table, panel, f"{model}, share of answers")
        assert shares[0] == 1
        assert shares[largest] == pytest.approx(0.3)
        seen = curve(table, panel, f"{model}, knows the noise")
        assert (seen[0], seen[largest]) == (1, 0.25)


def test_drawn_is_what_the_numbers_say(drawn):
    figure, table = drawn
    assert list(table.columns) == style.COLUMNS
    assert not table.duplicated(["panel", "curve", "x"]).any()
    for letter, axes in zip("ab", figure.axes, strict=True):
        assert axes.get_title().startswith(f"({letter})")
        lines = {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in axes.lines}
        names = set(table.loc[table["panel"] == letter, "curve"])
        assert lines.keys() == {name for name in names if "share" not in name}
        assert all(lines[name] == curve(table, letter, name) for name in lines)
        assert not axes.collections
    markers = [line.get_marker() for line in figure.axes[0].lines if "worst" in line.get_label()]
    assert len(set(markers)) == len(markers) == 3


def test_nothing_reaches_beyond_the_figures_edges(drawn):
    box = drawn[0].get_tightbbox()
    assert (box.min > -0.01).all()
    assert (box.max < drawn[0].get_size_inches() + 0.01).all()


def test_seeds_give_a_mean_and_a_range(tmp_path):
    figure, table = curves.curves(*write(tmp_path, seeds=(0, 1)).values())
    assert set(table["seeds"]) == {2}
    assert [len(axes.collections) for axes in figure.axes] == [3, 3]


def test_files_are_the_same_each_time(attacks, drawn):
    source = Source("smoke", {f"curves_{norm}": found for norm, found in attacks.items()})
    files = curves.draw(source)
    assert files == style.files("curves", *drawn, scale="smoke")
    read = pd.read_csv(io.BytesIO(files["curves.csv"]))
    pd.testing.assert_frame_equal(read, drawn[1], check_dtype=False)


def test_attacks_that_do_not_belong_together_are_refused(attacks):
    l2, linf = attacks.values()
    assert "no attack with a budget in linf" in refused(curves.curves, l2, [])
    assert "not an attack with a budget in l2" in refused(curves.curves, linf, linf)
    other = edited(l2[0], lambda given, _: given["attack"].update(steps=7))
    assert "differ in steps" in refused(curves.curves, [*l2[1:], other], linf)
    gap = next(a for a in l2 if attacked.settings(a)["epsilon"] == 1.5)
    assert refused(curves.curves, [a for a in l2 if a is not gap], linf) == (
        "baseline, model seed 1, lacks what another has: the attack with epsilon=1.5, "
        f"{curves.kind_of(gap)}, seed=0"
    )
