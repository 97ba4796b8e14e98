"""The audit passes honest models and catches models that hide their gradient."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.attacks.models import settings
from vibx.attacks.per_image import image_keys, tasks
from vibx.robustness.audit import BUDGETS, CRITERIA, Check, NothingToAttackError, audit, judged

PIXELS, CLASSES, N = 49, 4, 16
DRAW = np.random.default_rng(0)
W = jnp.float32(24 * np.linalg.qr(DRAW.normal(size=(PIXELS, CLASSES)))[0])
WAVES = jnp.float32(np.linalg.qr(DRAW.normal(size=(PIXELS, CLASSES)))[0])
IMAGES = jnp.float32(DRAW.uniform(0.2, 0.8, (N, PIXELS)))
LABELS = jnp.argmax(IMAGES @ W, axis=1)
KEYS = image_keys(jax.random.key(3), np.arange(N))
SETTINGS = settings("audit", pgd_steps=40, spsa_steps=40)
# Compiled as SETTINGS are.
QUICK = dataclasses.replace(SETTINGS, search_steps=1, pgd_steps=1, spsa_steps=1, restarts=1)


def logits(noise, stepped, ripples, hidden, x, key):
    """All models of these tests, told apart by numbers: one compilation of each attack does."""
    levels = jnp.where(stepped, jnp.round(16 * x) / 16, x)
    clean, normals = levels @ W, jax.random.normal(key, (CLASSES,))
    shown = jnp.where(hidden, jax.lax.stop_gradient(clean) + 0.05 * normals * clean, clean)
    return shown + noise * normals + ripples * jnp.sin(2000 * x @ WAVES)


def model(*, noise=0.0, stepped=False, ripples=0.0, hidden=False):
    return jax.tree_util.Partial(logits, *map(jnp.array, (noise, stepped, ripples, hidden)))


def always(**properties):
    """A model however many samples are wanted."""
    return lambda samples: model(**properties)


def noisy_with(samples):
    """Noise that averaging makes smaller: honest too."""
    return model(noise=0.0 if samples is None else 0.5 / math.sqrt(samples))


MODELS = {
    "linear": always(),  # honest
    "noisy": noisy_with,
    # The same logits of the image in 17 grey levels: the gradient is zero wherever it exists.
    "stepped": always(stepped=True),
    # The same logits with ripples too small to matter, whose slope drowns theirs.
    "shattered": always(ripples=0.5),
    # Only the noise has a gradient, and it is zero on average.
    "hidden in noise": always(hidden=True),
    "hidden but from the mean": lambda samples: model(hidden=samples is not None),
}


@functools.cache
def audited(name, *, targeted=False):
    targets = (LABELS + 1) % CLASSES if targeted else None
    checks = audit(
        SETTINGS,
        MODELS[name],
        tasks(IMAGES, LABELS, KEYS, targets=targets),
        LABELS,
        samples=12,
        repeats=20,
        transfer_from=model(),
    )
    return {check.name: check for check in checks}


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("name", ["linear", "noisy"])
def test_an_honest_model_passes_every_check(name, targeted):
    checks = audited(name, targeted=targeted)
    assert len(checks) == 11
    assert [check for check in checks.values() if not check.passed] == []


def test_a_gradient_of_zero_is_caught():
    checks = audited("stepped")
    caught = {name for name, check in checks.items() if not check.passed}
    assert {"gradients", "unbounded attack", "transfer", "black box", "norm budget"} <= caught
    assert checks["gradients"].values["zero"] == 1


def test_a_shattered_gradient_is_caught():
    checks = audited("shattered")
    caught = {name for name, check in checks.items() if not check.passed}
    assert checks["gradients"].passed  # they are there, and lead nowhere
    assert {"norm budget", "black box", "transfer"} <= caught


def test_a_gradient_that_only_the_noise_has_is_caught():
    checks = audited("hidden in noise")
    assert checks["gradients"].passed
    caught = {name for name, found in checks.items() if not found.passed}
    assert {"unbounded attack", "norm budget"} <= caught


def test_a_gradient_that_only_the_mean_has_is_caught():
    assert not audited("hidden but from the mean")["mean mode"].passed


def test_variants_are_other_attacks_than_the_usual_one():
    checks = audited("noisy")
    averaging = checks["gradient averaging"].values
    assert (averaging["samples_more"], averaging["samples_most"]) == (120, 1000)
    assert len({averaging[norm] for norm in ("norm", "norm_more", "norm_most")}) == 3
    iterations = checks["iterations"].values
    assert iterations["norm"] != iterations["norm_twice"]


def test_noise_that_only_the_attack_can_beat_is_told_from_robustness():
    """At kappa = 0 the attack sees a success on every image, and independent noise undoes most."""
    check = audited("noisy")["independent noise"]
    assert check.values["seen_0"] == 1
    assert check.values["kappa_0"] < 0.1
    assert check.values["kappa_1"] > 0.95


def test_images_that_are_wrong_before_are_left_out():
    images, keys = jnp.concatenate([IMAGES, IMAGES[:1]]), image_keys(KEYS[0], np.arange(N + 1))
    labels = jnp.append(LABELS, (LABELS[0] + 1) % CLASSES)
    options = {"samples": 12, "repeats": 20, "transfer_from": None}
    done = []
    told = options | {"on_progress": done.append}
    checks = audit(QUICK, always(), tasks(images, labels, keys), labels, **told)
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1)
    assert (checks[0].values["images"], checks[0].values["left_out"]) == (N, 1)
    names = [check.name for check in checks]
    assert "transfer" not in names
    assert len(names) == 10
    assert checks[names.index("random noise")].values["without"] == 1
    all_wrong = (LABELS + 1) % CLASSES
    with pytest.raises(NothingToAttackError, match="is right before the attack"):
        audit(QUICK, always(), tasks(IMAGES, all_wrong, KEYS), all_wrong, **options)


def test_checks_are_plain_json_and_the_same_every_time():
    attacked = tasks(IMAGES, LABELS, KEYS)
    first, second = (
        audit(QUICK, noisy_with, attacked, LABELS, samples=2, repeats=20, transfer_from=None)
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
    assert judged(name, **GOOD[name]).passed


@pytest.mark.parametrize(("name", "change"), BAD)
def test_a_criterion_fails_beyond_its_limit(name, change):
    found = judged(name, **{**GOOD[name], **change})
    assert found.passed is False
    assert all(value is None or math.isfinite(value) for value in found.values.values())
