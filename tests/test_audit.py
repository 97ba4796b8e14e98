"""The audit passes honest models and catches models that hide their gradient."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vibx.attacks.audit import AuditSettings, Check, audit
from vibx.attacks.per_image import image_keys

PIXELS, CLASSES, N = 49, 4, 16
DRAW = np.random.default_rng(0)
W = jnp.float32(24 * np.linalg.qr(DRAW.normal(size=(PIXELS, CLASSES)))[0])
WAVES = jnp.float32(np.linalg.qr(DRAW.normal(size=(PIXELS, CLASSES)))[0])
IMAGES = jnp.float32(DRAW.uniform(0.2, 0.8, (N, PIXELS)))
LABELS = jnp.argmax(IMAGES @ W, axis=1)
KEYS = image_keys(jax.random.key(3), np.arange(N))
SETTINGS = AuditSettings(pgd_steps=40, spsa_steps=40, spsa_directions=128)


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
    assert "norm budget" in caught


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
    with pytest.raises(ValueError, match="is right before the attack"):
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
