"""Configuration: every choice is readable, bad input is refused, a run_id names the result."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

import vibx.commands.train  # noqa: F401  (registers the run_id resolver)
from vibx import config

CONF = config.directory("train")
CHOICES = [
    f"{group}={file.stem}" for group in config.GROUPS for file in sorted((CONF / group).glob("*"))
]


def parsed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return config.parse(compose("train", overrides=list(overrides)))


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


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_has_a_schema(choice):
    group, name = choice.split("=")
    with_objective = ["objective=dropout"] if name == "deterministic" else []
    run, _ = parsed(choice, *with_objective)
    assert getattr(run, group).name == name


def test_every_schema_has_a_file():
    named = {
        group: {file.stem for file in (CONF / group).glob("*.yaml")} for group in config.GROUPS
    }
    assert named == {group: set(choices) for group, choices in config.GROUPS.items()}


@pytest.mark.parametrize(
    "objective", ["maximum_likelihood", "dropout", "confidence_penalty", "label_smoothing"]
)
def test_deterministic_objectives_choose_the_deterministic_bottleneck(objective):
    run, _ = parsed(f"objective={objective}")
    assert run.bottleneck.name == "deterministic"
    assert run.beta is None
    assert run.marginal is None
    with pytest.raises(config.ConfigError, match="makes no sense"):
        parsed(f"objective={objective}", "bottleneck=diagonal")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["beta=-1"], "beta=-1.0: must be finite and >= 0"),
        (["beta=nan"], "beta=nan"),
        (["beta=abc"], "beta: Value 'abc'"),
        (["beta=null"], "beta=null"),
        (["K=0"], "K=0: must be at least 1"),
        (["seed=1e3"], "seed: Value '1000.0'"),
        (["batch_size=60001"], "batch_size=60001: must be at most the 60000"),
        (["data.validation=10000", "batch_size=50001"], "at most the 50000"),
        (["data.train_images=0"], "data.train_images=0"),
        (["encoder.widths=[8,0]"], r"encoder.widths=\[8, 0\]"),
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
    with pytest.raises(config.ConfigError, match=message) as refused:
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
    ],
)
def test_run_id_changes_with_whatever_changes_the_result(change):
    assert run_id(change) != run_id()


def test_beta_is_no_part_of_a_deterministic_run():
    assert run_id("objective=dropout", "beta=1") == run_id("objective=dropout", "beta=2")


@given(
    beta=st.floats(0, 1e6),
    K=st.integers(1, 4096),
    seed=st.integers(0, 2**32 - 1),
    objective=st.sampled_from(sorted(config.GROUPS["objective"])),
)
def test_a_stored_config_reads_back_as_the_same_run(beta, K, seed, objective):
    run, _ = parsed(f"beta={beta!r}", f"K={K}", f"seed={seed}", f"objective={objective}")
    assert config.parse_config(run.to_dict()) == run


def test_configuration_is_found_from_a_checkout():
    assert Path("train.yaml") in [file.relative_to(CONF) for file in CONF.glob("*.yaml")]
