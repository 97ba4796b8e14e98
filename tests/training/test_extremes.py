"""The ends of float32: a run stays finite there, or fails by its name and leaves no record."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vibx import store
from vibx.config import schemas
from vibx.encodings import DiagonalGaussian, FullCovarianceGaussian
from vibx.errors import ConfigError
from vibx.objectives import cross_entropy
from vibx.training import memory
from vibx.training.run import DivergedError, train_runs

SCALES = [10.0**exponent for exponent in (-30, -20, -10, 0, 10, 18)]


def trained(cfg, directory, **options):
    """What comes of a run: its record, or its error."""
    data = dataclasses.replace(cfg.data, held_out_images=cfg.data.train_images)
    cfg = dataclasses.replace(cfg, data=data)
    directory.mkdir(exist_ok=True)
    every = {"eval_every": 1, "checkpoint_every": 1, "axis": 1}
    silent = {"on_epoch": lambda *_: None, "requested": lambda: 0}
    (outcome,) = train_runs({cfg: directory}, **every, **silent, **options).values()
    return outcome


@pytest.mark.parametrize(
    "cfg",
    [
        tiny.vib(K=1, bottleneck="full_covariance", epochs=1, batch_size=1),
        tiny.vib(K=1024, epochs=1, beta=1e6, encoder=tiny.mlp(), scale_shift=-69.0),
        tiny.vib(epochs=1, scale_shift=1e18),
        tiny.vib(epochs=1, scale_shift=-200.0, beta=0.0),
    ],
    ids=[
        "K=1 batch_size=1",
        "K=1024 beta=1e6 scales of 1e-30, no layers",
        "scales of 1e18",
        "scales that vanish, beta=0",
    ],
)
def test_an_extreme_run_has_finite_numbers(cache, tmp_path, cfg):
    record = trained(cfg, tmp_path)
    assert not isinstance(record, Exception), record
    for section in ("train", "test"):
        assert all(math.isfinite(value) for value in record[section].values())
    assert record["provenance"]["runs_at_once"] == 1


@pytest.mark.parametrize(
    "cfg",
    [
        tiny.vib(scale_shift=1e30),
        tiny.vib(beta=3e38),
        tiny.vib(optimizer=tiny.optimizer("author", learning_rate=1e30)),
    ],
    ids=["scales of 1e30", "beta=3e38", "learning_rate=1e30"],
)
def test_a_run_that_leaves_float32_fails_by_its_name_and_leaves_no_record(cache, tmp_path, cfg):
    error = trained(cfg, tmp_path)
    assert isinstance(error, DivergedError)
    assert "objective is not finite in epoch 1" in str(error)
    assert error.exit_code == 1
    assert not store.is_finished(tmp_path)


def test_the_rate_is_finite_over_all_scales():
    mean = np.float32([0.5, -2.0])

    @jax.jit
    def rates(scale):
        encodings = [
            DiagonalGaussian(mean, scale * jnp.ones(2)),
            FullCovarianceGaussian(mean, scale * jnp.eye(2)),
        ]
        return [tiny.standard_normal().rate(encoding, mean[None]) for encoding in encodings]

    for scale in SCALES:
        expected = (
            sum(m**2 + float(scale) ** 2 - 1 - 2 * math.log(scale) for m in mean.tolist()) / 2
        )
        assert jax.device_get(rates(scale)) == pytest.approx([expected] * 2, rel=1e-5)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_cross_entropy_of_large_logits(size):
    logits = np.float32([[size, 0, -size]] * 3)
    found = jax.jit(cross_entropy)(logits, np.arange(3))
    assert np.asarray(found) == pytest.approx([0, size, 2 * size], rel=1e-6)


def test_memory_counts_weights_gradient_moments_and_average():
    cfg = tiny.vib(K=3, encoder=tiny.mlp(8))
    weights = (784 * 8 + 8) + (8 * 6 + 6) + (3 * 10 + 10)
    with_average = memory.state_bytes(cfg)
    without = memory.state_bytes(
        dataclasses.replace(cfg, optimizer=tiny.optimizer("author", average_decay=None))
    )
    assert with_average == pytest.approx(5 * 4 * weights, abs=16)
    assert without == pytest.approx(4 * 4 * weights, abs=16)


@pytest.mark.parametrize(
    "change",
    [
        {"K": 100_000, "bottleneck": schemas.FullCovariance(name="full_covariance")},
        {"encoder": tiny.mlp(10**6, 10**6)},
        {"mc_samples": 2**31 - 1},
        {"objective": schemas.VIB(name="vib", train_samples=2**31 - 1)},
        {"encoder": tiny.cnn(8, kernel=10**6)},
    ],
    ids=str,
)
def test_a_run_that_cannot_fit_is_refused_with_what_it_takes_and_what_there_is(change):
    cfg = dataclasses.replace(tiny.vib(), **change)
    with pytest.raises(
        ConfigError, match=r"does not fit .* take [\d,.]+ GB or more, and [\d.]+ GB"
    ):
        memory.require_memory(cfg)
    memory.require_memory(tiny.vib(), runs=4)
    with pytest.raises(ConfigError, match="of 1000000000 runs at once"):
        memory.require_memory(tiny.vib(), runs=10**9)
