"""What is traced and what is compiled in, over every choice in conf/train and every field's mark.

Data sets are left out: some need files, and their images are arguments anyway. The choices are
tried several at once, as each run takes seconds to compile.
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tests.composed import TRAINING_GROUPS, files, parsed, shrunk
from vibx import choices
from vibx.choices import choice, names_of, schema_of, traced
from vibx.config import parse_config, schemas
from vibx.data.device import scale as scale_images
from vibx.encodings import LOG_2PI
from vibx.errors import ConfigError
from vibx.marginals import Marginal, marginal
from vibx.objectives import Terms, objective, vib
from vibx.tracing import program, traceable
from vibx.training.step import compiled_initial_state

pytestmark = pytest.mark.slow
CHOICES = {group: files(group) for group in TRAINING_GROUPS if group != "data"}
ONE_STEP = ["K=3", "batch_size=16", "data.train_images=16", "epochs=2"]
IMAGES = tiny.images(16)


def runs():
    """Runs with the choices of each group in turn, for every objective and bottleneck that fit."""
    fitting = [
        {"objective": objective, "bottleneck": bottleneck}
        for objective in CHOICES["objective"]
        for bottleneck in CHOICES["bottleneck"]
        if schema_of("objective", objective).stochastic
        == schema_of("bottleneck", bottleneck).stochastic
    ]
    for i, pair in enumerate(fitting):
        in_turn = {group: names[i % len(names)] for group, names in CHOICES.items()}
        yield in_turn | pair


RUNS = list(runs())

every_run = pytest.mark.parametrize("run", RUNS, ids=lambda run: " ".join(run.values()))


def composed(run):
    """A small run that trains for one step an epoch."""
    cfg, _ = parsed(*ONE_STEP, *(f"{group}={name}" for group, name in run.items()))
    return shrunk(cfg)


def traced_numbers(schema, *path):
    """Paths and values of all traced numbers, by the marks of the fields."""
    for name in names_of(type(schema), role="traced"):
        value = getattr(schema, name)
        if dataclasses.is_dataclass(value):
            yield from traced_numbers(value, *path, name)
        elif value is not None:
            yield (*path, name), value


def replaced(schema, path, value):
    name, *rest = path
    if rest:
        value = replaced(getattr(schema, name), rest, value)
    return dataclasses.replace(schema, **{name: value})


def one_step(cfg):
    state, (measured,) = tiny.train(cfg, images=IMAGES, epochs=1)
    return state, measured


def test_every_choice_is_in_a_run():
    for group, names in CHOICES.items():
        assert {run[group] for run in RUNS} == set(names)


@every_run
def test_every_choice_builds_and_trains(run):
    cfg = composed(run)
    for group, name in run.items():
        if group != "marginal" or cfg.objective.stochastic:
            assert getattr(cfg, group).name == name
    start = compiled_initial_state(cfg)(jax.random.key(cfg.seed))
    state, measured = one_step(cfg)
    assert all(np.isfinite(value) for value in measured if value is not None)
    assert (measured.rate is None) == (not cfg.objective.stochastic)
    for part in start.parameters:
        assert tiny.differ(state.parameters[part], start.parameters[part]), part


@every_run
def test_training_depends_on_every_traced_number(run):
    """The objective does, or the updated weights on the optimizer's; nothing else is compiled."""
    cfg = composed(run)
    state, measured = one_step(cfg)
    numbers = dict(traced_numbers(cfg))
    assert len(numbers) == len(jax.tree.leaves(traceable(cfg))) > 0
    for path, value in numbers.items():
        changed = replaced(cfg, path, 1.5 * value or 0.1)
        assert program(changed) == program(cfg)
        other_state, other = one_step(changed)
        if path[0] == "optimizer":
            assert tiny.differ(other_state.parameters, state.parameters), path
        else:
            assert other.objective != measured.objective, path


# Choices that are made up here


@pytest.fixture
def own_choices(monkeypatch):
    """What is registered in a test is forgotten after it."""
    groups = {group: dict(names) for group, names in choices.GROUPS.items()}
    monkeypatch.setattr(choices, "GROUPS", groups)
    for module in ("vibx.config.conversion", "vibx.config.run"):
        monkeypatch.setattr(f"{module}.GROUPS", groups)


def with_node(cfg, group, **node):
    """A configuration read from a record's, with another choice."""
    return parse_config({**cfg.to_dict(), group: node})


def test_a_new_objective_gets_its_own_number(own_choices, compilations):
    @choice("objective", "sharpened")
    @dataclass(frozen=True, kw_only=True)
    class Sharpened(schemas.VIB):
        sharpness: float = traced()

    @objective.register(Sharpened)
    def _(schema: Sharpened, model, x, y, **options):
        terms = vib(schema, model, x, y, **options)
        return Terms(schema.sharpness * terms.distortion, terms.distortion, terms.rate)

    cfg = tiny.vib(images=16, batch_size=16)
    run = with_node(cfg, "objective", name="sharpened", sharpness=0.7)
    other = with_node(cfg, "objective", name="sharpened", sharpness=3)
    assert run.run_id.startswith("sharpened-K3-beta0.01-0.7-seed0-")
    for run_of, sharpness in ((run, 0.7), (other, 3.0)):
        _, measured = one_step(run_of)
        np.testing.assert_allclose(measured.objective, sharpness * measured.distortion, rtol=1e-6)
        assert (sharpness == 0.7) == bool(compilations)
        compilations.clear()


def test_a_new_marginal_gets_its_own_number():
    """Two runs of one process that differ in it alone."""

    @dataclass(frozen=True, kw_only=True)
    class Wide(schemas.Named):
        scale: float = traced()

    @marginal.register(Wide)
    class WideNormal(Marginal):
        def __init__(self, schema, K, *, rngs):
            self.scale = schema.scale

        def log_prob(self, z):
            return -jnp.sum((z / self.scale) ** 2 / 2 + jnp.log(self.scale) + LOG_2PI / 2, axis=-1)

    for scale in (1.0, 10.0):
        cfg = tiny.vib(images=16, batch_size=16, marginal=Wide(name="wide", scale=scale))
        start = jax.device_get(compiled_initial_state(cfg)(jax.random.key(0)).parameters)
        _, measured = one_step(cfg)
        outputs = tiny.encoder_outputs(start, np.asarray(scale_images(IMAGES.pixels)))
        mean, deviation = outputs[:, :3], np.log1p(np.exp(outputs[:, 3:]))
        exact = np.log(scale / deviation) + (mean**2 + deviation**2) / (2 * scale**2) - 0.5
        spread = 1.0  # nats, of the mean of 16 images' single samples; the scales are 6.9 apart
        assert abs(measured.rate - exact.sum(axis=-1).mean()) < spread


@pytest.mark.parametrize(
    ("group", "base"),
    [
        ("encoder", schemas.Layers),
        ("bottleneck", schemas.Gaussian),
        ("decoder", schemas.Named),
        ("marginal", schemas.Named),
        ("objective", schemas.StochasticObjective),
        ("optimizer", schemas.Optimizer),
    ],
)
def test_a_schema_without_code_is_refused_by_its_name(own_choices, group, base):
    @choice(group, "bare")
    @dataclass(frozen=True, kw_only=True)
    class Bare(base):
        pass

    node = {**tiny.vib().to_dict()[group], "name": "bare"}
    known = {field.name for field in dataclasses.fields(Bare)}
    cfg = with_node(tiny.vib(), group, **{k: v for k, v in node.items() if k in known})
    with pytest.raises(ConfigError, match=rf"{group}=[bB]are: Bare has a schema, but nothing"):
        one_step(cfg)


# Programs


@pytest.mark.parametrize(
    "cfgs",
    [
        [tiny.vib(beta=beta) for beta in (0.0, 1e-3, 1.0)],
        [tiny.vib(seed=seed) for seed in (0, 1)],
        [tiny.vib(optimizer=tiny.optimizer("author", learning_rate=r)) for r in (1e-4, 1e-2)],
        [tiny.vib(optimizer=tiny.optimizer("author", name=name)) for name in ("one", "another")],
        [tiny.vib(mc_samples=samples) for samples in (1, 12)],
        [tiny.deterministic(tiny.dropout(rate)) for rate in (0.0, 0.5)],
        [tiny.deterministic(tiny.confidence_penalty(weight)) for weight in (0.1, 1.0)],
        [tiny.deterministic(tiny.label_smoothing(epsilon)) for epsilon in (0.01, 0.1)],
    ],
    ids=["beta", "seed", "rate", "name", "mc_samples", "dropout", "penalty", "smoothing"],
)
def test_numbers_are_no_part_of_the_program(cfgs):
    assert len({program(cfg) for cfg in cfgs}) == 1


def test_what_shapes_the_computation_is_part_of_the_program():
    cfgs = [
        tiny.vib(),
        tiny.vib(K=4),
        tiny.vib(encoder=tiny.mlp(9)),
        tiny.vib(encoder=tiny.mlp(8, activation="tanh")),
        tiny.vib(encoder=tiny.cnn(8)),
        tiny.vib(encoder=tiny.cnn(8, kernel=2)),
        tiny.vib(encoder=tiny.cnn(8, channels=(4,))),
        tiny.vib(decoder=tiny.mlp(8)),
        tiny.vib(bottleneck="full_covariance"),
        tiny.vib(scale_shift=-5.0),
        tiny.vib(train_samples=2),
        tiny.vib(batch_size=64),
        tiny.vib(images=64),
        tiny.vib(epochs=5),
        tiny.vib(optimizer=tiny.optimizer("seed_text")),
        tiny.vib(optimizer=tiny.optimizer("author", b1=0.6)),
        tiny.deterministic(),
        tiny.deterministic(tiny.dropout(0.5)),
    ]
    assert len({program(cfg) for cfg in cfgs}) == len(cfgs)


def test_a_sweep_over_numbers_compiles_once(compilations):
    fast = tiny.optimizer("author", learning_rate=1e-3)
    first, *others = (
        tiny.vib(seed=seed, beta=beta, optimizer=fast, mc_samples=samples)
        for seed, beta, samples in ((0, 0.0, 1), (0, 1.0, 1), (1, 1e-3, 12))
    )
    tiny.train(first)  # which compiles, if no other test has
    compilations.clear()
    for cfg in others:
        tiny.train(cfg)
    assert not compilations


def test_a_compiled_function_does_not_see_what_is_apart():
    cfg = tiny.vib()
    assert traceable(cfg).beta == np.float32(cfg.beta)
    for schema in ("objective", "optimizer", "data"):
        for name in names_of(type(getattr(cfg, schema)), role="apart"):
            assert not hasattr(getattr(traceable(cfg), schema), name)
    for reads in (lambda c: c.seed, lambda c: c.mc_samples):
        with pytest.raises(AttributeError):
            jax.jit(reads)(traceable(cfg))
    assert jax.jit(lambda c: c.beta * c.K)(traceable(cfg)) == np.float32(0.01) * 3
