"""Configuration: every choice is readable, bad input is refused, a run_id names the result."""

import dataclasses
import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.composed import (
    TRAINING_GROUPS,
    deterministic_objectives,
    files,
    parsed,
    with_choice,
)
from tests.processes import ROOT
from vibx import config
from vibx.choices import ANY_NAME, GROUPS, apart, compiled, traced
from vibx.config import schemas
from vibx.errors import ConfigError

BETAS = st.just(0.0) | st.floats(1e-30, 1e6)
RECORDS = sorted((ROOT / "outputs" / "paper").glob("*/*/metrics.json"))


def run_id(*overrides):
    return parsed(*overrides)[0].run_id


def test_default_is_the_papers_model_of_table_1():
    run, _ = parsed("beta=1e-3")
    assert (run.K, run.epochs, run.encoder.widths) == (256, 200, (1024, 1024))
    assert (run.bottleneck.name, run.decoder.name) == ("diagonal", "linear")
    assert (run.optimizer.name, run.optimizer.b1, run.optimizer.average_decay) == (
        "author",
        0.5,
        0.999,
    )


@pytest.mark.parametrize("group", TRAINING_GROUPS)
def test_every_choice_has_a_schema_and_every_schema_a_file(group):
    names = files(group)
    for name in names:
        needed = config.field_names(GROUPS[group].get(name) or GROUPS[group][ANY_NAME])
        if {"path", "dataset"} & set(needed):
            continue  # of data that is somewhere: see the tests of the data
        run, _ = parsed(*with_choice(f"{group}={name}"))
        assert getattr(run, group).name == name
    assert GROUPS[group].keys() - {ANY_NAME} <= set(names)
    assert ANY_NAME in GROUPS[group] or GROUPS[group].keys() == set(names)


@pytest.mark.parametrize("objective", deterministic_objectives())
def test_deterministic_objectives_choose_the_deterministic_bottleneck(objective):
    run, _ = parsed(f"objective={objective}")
    assert run.bottleneck.name == "deterministic"
    assert run.beta is None
    assert run.marginal is None
    with pytest.raises(ConfigError, match="makes no sense"):
        parsed(f"objective={objective}", "bottleneck=diagonal")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["beta=-1"], "beta=-1.0: must be finite and >= 0"),
        (["beta=nan"], "beta=nan"),
        (["beta=abc"], "beta=abc: must be a number, or null"),
        (["beta=null"], "beta=null"),
        (["K=0"], "K=0: must be at least 1"),
        (["seed=1e3"], "seed=1000.0: must be a whole number"),
        (["batch_size=60001"], "batch_size=60001: must be at most the 60000"),
        (["data.validation=10000", "batch_size=50001"], "at most the 50000"),
        (["data.train_images=0"], "data.train_images=0"),
        (["encoder.widths=[8,0]"], r"encoder.widths=\[8, 0\]"),
        (["encoder.activation=sigmoid"], "encoder.activation=sigmoid: must be one of relu, "),
        (["encoder=cnn", "encoder.channels=[]"], r"encoder.channels=\[\]: must be 1 or more"),
        (["encoder=cnn", "encoder.kernel=0"], "encoder.kernel=0: must be at least 1"),
        (["bottleneck.scale_shift=inf"], "bottleneck.scale_shift=inf: must be finite"),
        (["optimizer.schedule=linear"], "one of constant, staircase, cosine"),
        (["optimizer.b1=1"], "optimizer.b1=1.0"),
        (["+bete=1"], r"no such key: bete \(did you mean beta\?\)"),
        (["+data.valid=1"], "no such key: data.valid"),
        (["objective=vib", "bottleneck=deterministic"], "makes no sense"),
        (["objective.train_samples=0"], "objective.train_samples=0"),
        (["objective=dropout", "objective.rate=1"], "objective.rate=1.0"),
        (["eval_every=0"], "eval_every=0"),
    ],
)
def test_bad_input_is_refused_with_its_key_and_value(overrides, message):
    with pytest.raises(ConfigError, match=message) as refused:
        parsed(*overrides)
    assert "\n" not in str(refused.value)


def test_run_id_names_the_result_not_the_way_to_it():
    same = ["beta=1e-3", "root=elsewhere", "force=true", "eval_every=1", "checkpoint_every=3"]
    assert run_id(*same) == run_id("beta=0.001")
    assert run_id("beta=1") == run_id("beta=1.0")
    assert run_id("beta=1e-3", "seed=1").startswith("vib-K256-beta0.001-seed1-")


@pytest.mark.parametrize(
    "change",
    [
        "beta=2e-3",
        "seed=1",
        "K=2",
        "epochs=3",
        "batch_size=50",
        "mc_samples=1",
        "optimizer=seed_text",
        "optimizer.learning_rate=2e-4",
        "encoder.widths=[1024]",
        "data.validation=10000",
        "bottleneck=full_covariance",
        "bottleneck.scale_shift=0",
        "objective.train_samples=2",
        "decoder=mlp",
        "encoder=cnn",
    ],
)
def test_run_id_changes_with_whatever_changes_the_result(change):
    assert run_id(change) != run_id()


def test_beta_is_no_part_of_a_deterministic_run():
    assert run_id("objective=dropout", "beta=1") == run_id("objective=dropout", "beta=2")


@pytest.mark.parametrize("objective", files("objective"))
def test_a_stored_config_reads_back_as_the_same_run(objective):
    composed, _ = parsed(f"objective={objective}")

    @settings(max_examples=30)
    @given(beta=BETAS, K=st.integers(1, 4096), seed=st.integers(0, 2**32 - 1))
    def check(beta, K, seed):
        beta = None if composed.beta is None else beta
        run = dataclasses.replace(composed, beta=beta, K=K, seed=seed)
        read = config.parse_config(json.loads(json.dumps(run.to_dict())))
        assert read == run
        assert read.run_id == run.run_id

    check()


@settings(max_examples=5)
@given(beta=BETAS, seed=st.integers(0, 2**32 - 1))
def test_numbers_on_the_command_line_are_read_to_the_last_digit(beta, seed):
    run, _ = parsed(f"beta={beta!r}", f"seed={seed}")
    assert (run.beta, run.seed) == (beta, seed)


# Identity


def test_committed_records_are_known_by_the_names_of_their_directories():
    assert RECORDS
    for file in RECORDS:
        record = json.loads(file.read_text())
        assert config.parse_config(record["config"]).run_id == record["run_id"] == file.parent.name


@dataclass(frozen=True, kw_only=True)
class LaterVIB(schemas.VIB):
    """Equation 17 with keys that came after its first records."""

    warmup: int = compiled(default=0, later=True)
    floor: float = traced(default=0.0, later=True)
    note: str = apart(default="", later=True)


def test_a_later_key_at_its_default_leaves_a_runs_name_and_elsewhere_is_part_of_it(monkeypatch):
    before = tiny.vib(beta=0.001)
    monkeypatch.setitem(GROUPS["objective"], "vib", LaterVIB)
    run = config.parse_config(before.to_dict())  # a record without the keys
    assert run.objective == LaterVIB(name="vib", train_samples=1)
    digest = before.run_id.rpartition("-")[2]
    assert run.run_id.endswith(digest)
    for key, value in {"warmup": 1, "floor": 0.5, "note": "x"}.items():
        node = {**before.to_dict()["objective"], key: value}
        changed = config.parse_config({**before.to_dict(), "objective": node})
        assert not changed.run_id.endswith(digest)
        assert config.parse_config(changed.to_dict()) == changed
