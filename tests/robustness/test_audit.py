"""The audit passes honest models and catches models that hide their gradient."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibx.attacks.per_image import image_keys
from vibx.robustness.audit import (
    BUDGETS,
    CRITERIA,
    AuditSettings,
    Check,
    NothingToAttackError,
    audit,
    check,
)

PIXELS, CLASSES, N = 49, 4, 16
DRAW = np.random.default_rng(0)
W = jnp.float32(24 * np.linalg.qr(DRAW.normal(size=(PIXELS, CLASSES)))[0])
WAVES = jnp.float32(np.linalg.qr(DRAW.normal(size=(PIXELS, CLASSES)))[0])
IMAGES = jnp.float32(DRAW.uniform(0.2, 0.8, (N, PIXELS)))
LABELS = jnp.argmax(IMAGES @ W, axis=1)
KEYS = image_keys(jax.random.key(3), np.arange(N))
SETTINGS = AuditSettings(pgd_steps=40, spsa_steps=40)


def linear(x, key):
    """Logits without noise: honest."""
    return x @ W


def noisy(samples, x, key):
    """Logits with noise that averaging makes smaller: honest too."""
    noise = 0 if samples is None else 0.5 * jax.random.normal(key, (CLASSES,)) / np.sqrt(samples)
    return x @ W + noise


def stepped(x, key):
    """The same logits of the image in 17 grey levels: the gradient is zero wherever it exists."""
    return jnp.round(16 * x) / 16 @ W


def shattered(x, key):
    """The same logits with ripples too small to matter, whose slope drowns theirs."""
    return x @ W + 0.2 * jnp.sin(2000 * x @ WAVES)


def hidden_in_noise(x, key):
    """Only the noise has a gradient, and it is zero on average."""
    through_noise = 0.05 * jax.random.normal(key, (CLASSES,)) * (x @ W)
    return jax.lax.stop_gradient(x @ W) + through_noise


@functools.cache
def audited(classify_with, *, targeted=False):
    targets = (LABELS + 1) % CLASSES if targeted else None
    checks = audit(
        classify_with,
        IMAGES,
        LABELS,
        KEYS,
        targets=targets,
        samples=12,
        transfer_from=jax.tree_util.Partial(linear),
        settings=SETTINGS,
    )
    return {check.name: check for check in checks}


@functools.cache
def always(logits):
    """A model without noise, however many samples are wanted."""
    return lambda samples: jax.tree_util.Partial(logits)


@functools.cache
def noisy_with(samples):
    return jax.tree_util.Partial(functools.partial(noisy, samples))


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("classify_with", [always(linear), noisy_with], ids=["linear", "noisy"])
def test_an_honest_model_passes_every_check(classify_with, targeted):
    checks = audited(classify_with, targeted=targeted)
    assert len(checks) == 11
    assert [check for check in checks.values() if not check.passed] == []


def test_a_gradient_of_zero_is_caught():
    checks = audited(always(stepped))
    caught = {name for name, check in checks.items() if not check.passed}
    assert {"gradients", "unbounded attack", "transfer", "black box", "mean mode"} <= caught
    assert checks["gradients"].values["zero"] == 1


def test_a_shattered_gradient_is_caught():
    checks = audited(always(shattered))
    caught = {name for name, check in checks.items() if not check.passed}
    assert checks["gradients"].passed  # they are there, and lead nowhere
    assert {"norm budget", "black box", "transfer"} <= caught


def test_a_gradient_that_only_the_noise_has_is_caught():
    checks = audited(always(hidden_in_noise))
    assert checks["gradients"].passed
    caught = {name for name, found in checks.items() if not found.passed}
    assert {"unbounded attack", "norm budget"} <= caught


def test_noise_that_only_the_attack_can_beat_is_told_from_robustness():
    """At kappa = 0 the attack sees a success on every image, and new noise undoes most of them."""
    check = audited(noisy_with)["independent noise"]
    assert check.values["seen_0"] == 1
    assert check.values["kappa_0"] < 0.1
    assert check.values["kappa_1"] > 0.95


def test_images_that_are_wrong_before_are_left_out():
    wrong = LABELS.at[0].set((LABELS[0] + 1) % CLASSES)
    quick = AuditSettings(10, 1, 1, 1, 2, 1, 2)
    checks = audit(
        always(linear), IMAGES, wrong, KEYS, samples=12, transfer_from=None, settings=quick
    )
    names = [check.name for check in checks]
    assert "transfer" not in names
    assert len(names) == 10
    assert checks[names.index("random noise")].values["without"] == 1
    all_wrong = (LABELS + 1) % CLASSES
    with pytest.raises(NothingToAttackError, match="is right before the attack"):
        audit(
            always(linear), IMAGES, all_wrong, KEYS, samples=12, transfer_from=None, settings=quick
        )


def test_checks_are_plain_json_and_the_same_every_time():
    quick = AuditSettings(10, 2, 2, 2, 2, 2, 2)
    first, second = (
        audit(noisy_with, IMAGES, LABELS, KEYS, samples=2, transfer_from=None, settings=quick)
        for _ in range(2)
    )
    assert first == second
    assert all(isinstance(check, Check) for check in first)
    text = json.dumps([check._asdict() for check in first], allow_nan=False)
    assert [check["name"] for check in json.loads(text)] == [check.name for check in first]


# The criteria, on made-up numbers

GOOD = {
    "gradient averaging": {
        "success": 0.97,
        "success_more": 0.99,
        "success_most": 1.0,
        "norm": 1.0,
        "norm_more": 1.0,
        "norm_most": 1.1,
        "samples_more": 120,
        "samples_most": 1000,
    },
    "independent noise": {"kappa_0": 0.1, "kappa_1": 0.95, "kappa_5": 0.94, "seen_0": 1.0},
    "unbounded attack": {"seen_1": 1.0, "seen_5": 1.0},
    "iterations": {"norm": 1.0, "norm_twice": 0.985},
    "norm budget": {"norm": 1.0}
    | {f"left_{b}": v for b, v in zip(BUDGETS, (1.0, 0.9, 0.5, 0.02, 0.03, 0.01), strict=True)},
    "random restarts": {"first": 0.5, "best": 0.52, "starts": 5, "tolerance": 0.02},
    "transfer": {"success": 0.5, "pgd": 0.45},
    "black box": {"success": 0.5, "pgd": 0.5},
    "mean mode": {"success": 0.3, "pgd": 0.6},
    "gradients": {"zero": 0.0, "not_finite": 0.0, "zero_pixels": 0.3},
    "random noise": {"without": 0.99, "with_noise": 0.94},
}
BAD = [
    ("gradient averaging", {"success_more": 0.91}),
    ("gradient averaging", {"success": 0.94}),
    ("independent noise", {"kappa_1": 0.949}),
    ("independent noise", {"kappa_5": 0.93}),
    ("unbounded attack", {"seen_1": 0.98}),
    ("unbounded attack", {"seen_5": 0.98}),
    ("iterations", {"norm_twice": 0.97}),
    ("iterations", {"norm_twice": 1.03}),
    ("iterations", {"norm": math.nan}),
    ("norm budget", {"left_400": 0.05}),
    ("norm budget", {"left_800": 0.02}),
    ("random restarts", {"best": 0.53}),
    ("transfer", {"success": 0.51}),
    ("transfer", {"pgd": 0.44}),
    ("black box", {"success": 0.51}),
    ("mean mode", {"success": 0.61}),
    ("gradients", {"zero": 0.02}),
    ("gradients", {"not_finite": 0.02}),
    ("random noise", {"with_noise": 0.93}),
]


def test_every_criterion_is_tried():
    assert set(GOOD) == set(CRITERIA) == {name for name, _ in BAD}


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_passes_at_its_limit(name):
    assert check(name, **GOOD[name]).passed


@pytest.mark.parametrize(("name", "change"), BAD)
def test_a_criterion_fails_beyond_its_limit(name, change):
    found = check(name, **{**GOOD[name], **change})
    assert found.passed is False
    assert all(value is None or math.isfinite(value) for value in found.values.values())
