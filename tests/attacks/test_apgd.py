"""Auto-PGD: closed forms, budgets, restarts, and noise that must not decide what is best."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as sized
from hypothesis import strategies as st

import vibx.attacks
from tests.attacks.models import (
    IMAGES,
    KEY,
    KEYS,
    LABELS,
    TARGETS,
    N,
    accuracy,
    grey_images,
    random_linear,
    settings,
    trained,
)
from vibx.attacks.apgd import aim_of_start
from vibx.attacks.descent import attack_within_budget, project
from vibx.attacks.per_image import Goal, image_keys, perturb, tasks
from vibx.attacks.scoring import norms, reevaluate, share_of
from vibx.errors import ConfigError
from vibx.tracing import traceable

vibx.attacks.import_modules()
TASKS = tasks(IMAGES, LABELS, KEYS)
QUICK = {"steps": 20, "restarts": 2, "noise_samples": 4}
EACH_TWICE = np.arange(N) // 2
norms_of_budgets = pytest.mark.parametrize("norm", ["l2", "linf"])
modes = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


def apgd(classify, wanted, **changes):
    attack = settings("apgd", **QUICK | changes)
    found = perturb(attack, classify, wanted, on_progress=lambda fraction: None)
    return jax.device_get(found)


@jax.jit
def margins(classify, wanted, images):
    return jax.vmap(lambda goal, image: goal.margin(classify(image, KEY)))(wanted.goal, images)


# Deterministic models


@norms_of_budgets
@modes
def test_a_linear_classifier_falls_exactly_beyond_its_closed_form(norm, targeted):
    """Away from the box the margin falls by epsilon times the dual norm of its gradient."""
    classify = random_linear(2)
    W, _ = classify.args
    images = grey_images(N)
    logits = images @ W
    labels = np.argmax(logits, axis=1)
    slope = W[:, 0] - W[:, 1]
    dual = np.linalg.norm(slope) if norm == "l2" else np.abs(slope).sum()
    smallest = np.abs(logits[:, 0] - logits[:, 1]) / dual
    wanted = tasks(images, labels, KEYS, targets=1 - labels if targeted else None)
    for epsilon in (0.5 * np.median(smallest), np.median(smallest), smallest.max() * 1.001):
        found = apgd(classify, wanted, norm=norm, epsilon=float(epsilon), noise_samples=None)
        np.testing.assert_array_equal(found.found["success"], smallest < epsilon)
        np.testing.assert_allclose(
            found.found["margin"], (smallest - epsilon) * dual, atol=1e-3 * epsilon * dual
        )


def test_the_optimum_is_found_where_the_box_binds():
    """The scaled direction clipped to the box, at the full budget."""
    classify = random_linear(2)
    W, _ = classify.args
    labels = np.argmax(IMAGES @ W, axis=1)
    wanted = tasks(IMAGES, labels, KEYS)
    found = apgd(classify, wanted, norm="l2", epsilon=2.0, steps=100, noise_samples=None)
    towards = np.where(labels[:, None] == 0, W[:, 1] - W[:, 0], W[:, 0] - W[:, 1])
    nearest = functools.partial(project, norm="l2", epsilon=2.0)
    optimum = jax.vmap(nearest)(IMAGES + 100 * towards, IMAGES)
    np.testing.assert_allclose(
        margins(classify, wanted, found.images), margins(classify, wanted, optimum), rtol=1e-3
    )


@norms_of_budgets
def test_knowing_a_noise_that_is_none_changes_nothing(norm):
    model, targets = trained("deterministic"), TARGETS if norm == "linf" else None
    wanted = tasks(IMAGES, LABELS, KEYS, targets=targets)
    options = {"norm": norm, "epsilon": 0.1 if norm == "linf" else 1.0}
    plain = apgd(model, wanted, **options)
    knowing = apgd(model, wanted, noise_samples=None, **options)
    np.testing.assert_allclose(knowing.found["margin"], plain.found["margin"], atol=0.02)
    at = margins(model, wanted, knowing.images)
    np.testing.assert_allclose(at, knowing.found["margin"], atol=1e-3)
    np.testing.assert_array_equal(knowing.found["success"], at < 0)
    assert 0.2 < knowing.found["success"].mean() < 0.9


@norms_of_budgets
def test_steps_of_its_own_size_beat_steps_of_one_size(norm):
    model, epsilon = trained("deterministic"), {"l2": 1.0, "linf": 0.1}[norm]
    ours = apgd(model, TASKS, norm=norm, epsilon=epsilon, steps=50, restarts=1)
    attack = settings("pgd", norm=norm, steps=50)
    budgets = np.full(N, epsilon, np.float32)
    pgd = attack_within_budget(traceable(attack), model, TASKS, budgets)
    difference = margins(model, TASKS, ours.images) - margins(model, TASKS, pgd)
    assert np.mean(difference) < 0


# Every model


# Each of both is in one compilation without the other.
norms_and_noises = pytest.mark.parametrize(
    ("norm", "noise_samples"), [("l2", 4), ("l2", None), ("linf", 4)]
)


@norms_and_noises
@given(epsilon=st.floats(1e-3, 8), seed=st.integers(0, 99))
@sized(max_examples=10)
def test_never_outside_ball_and_box(norm, noise_samples, epsilon, seed):
    wanted = tasks(IMAGES, LABELS, image_keys(jax.random.key(seed), np.arange(N)))
    budget = {"norm": norm, "epsilon": epsilon / (10 if norm == "linf" else 1)}
    found = apgd(trained("vib"), wanted, **budget, noise_samples=noise_samples, steps=4)
    assert np.all((found.images >= 0) & (found.images <= 1))
    assert np.all(
        getattr(norms(IMAGES, found.images), norm) <= budget["epsilon"] * (1 + 1e-5) + 1e-7
    )


@norms_and_noises
def test_more_restarts_and_larger_budgets_never_do_worse(norm, noise_samples):
    model, largest = trained("vib"), {"l2": 2.0, "linf": 0.2}[norm]

    def margin(share, restarts):
        options = {"norm": norm, "epsilon": share * largest, "noise_samples": noise_samples}
        return apgd(model, TASKS, restarts=restarts, **options).found["margin"]

    assert np.all(margin(0.5, 5) <= margin(0.5, 1))
    assert np.any(margin(0.5, 5) < margin(0.5, 1))
    falling = [margin(share, 2).mean() for share in (0.1, 0.25, 0.5, 1.0)]
    assert falling == sorted(falling, reverse=True)


def test_the_accuracy_that_it_leaves_falls_with_the_budget():
    model = trained("vib")
    left = [
        accuracy(model, apgd(model, TASKS, epsilon=epsilon).images)
        for epsilon in (0.25, 0.5, 1.0, 2.0)
    ]
    assert left == sorted(left, reverse=True)
    assert left[0] > 0.7
    assert left[-1] < 0.05


@pytest.mark.parametrize("noise_samples", [4, None])
def test_other_images_change_nothing(noise_samples):
    model = trained("vib")
    whole = apgd(model, TASKS, noise_samples=noise_samples)
    twice, expected = jax.tree.map(lambda leaf: leaf[EACH_TWICE], (TASKS, whole))
    found = apgd(model, twice, noise_samples=noise_samples)
    # Rounding in another row of a matrix product can choose another point of almost equal margin.
    np.testing.assert_allclose(found.found["margin"], expected.found["margin"], atol=0.05)
    same = np.abs(found.images - expected.images).max(axis=1) < 1e-3
    assert same.mean() >= 0.6


def test_starts_aim_at_the_classes_in_turn_the_likeliest_first():
    logits, aim_of = jnp.asarray([1.0, 4.0, 3.0, 2.0]), jax.jit(aim_of_start)

    def aims(goal):
        found = [aim_of(goal, logits, i) for i in range(6)]
        return [(int(aim.label), bool(aim.targeted)) for aim in found]

    away, towards = (Goal(jnp.int32(2), jnp.bool_(targeted)) for targeted in (False, True))
    own = (2, False)
    assert aims(away) == [own, (1, True), (3, True), (0, True), own, (1, True)]
    assert aims(towards) == [(2, True)] * 6


# Noise


COINS = 256
COIN_KEYS = image_keys(KEY, np.arange(COINS))
HEADS = tasks(np.full((COINS, 4), 0.5), np.zeros(COINS, int), COIN_KEYS)


def coin(slope, lead, size, x, key):
    """Two logits whose lead rises with x's first pixel, with noise that is far above that."""
    return jnp.stack([slope * x[0] + lead + size * jax.random.normal(key), jnp.zeros(())])


def flipped(slope, lead, size, *, noise_samples=1, restarts=2):
    """The coin, and how it was attacked, within 0.1 of its first pixel."""
    classify = jax.tree_util.Partial(coin, *map(jnp.float32, (slope, lead, size)))
    options = {"noise_samples": noise_samples, "restarts": restarts}
    return classify, apgd(classify, HEADS, norm="linf", epsilon=0.1, **options)


def noisy_slope(x, key):
    """The margin is the first pixel; its gradient has noise that its value has not."""
    noise = 10 * jax.random.normal(key) * x[0]
    return jnp.stack([x[0] + noise - jax.lax.stop_gradient(noise), jnp.zeros(())])


def test_the_gradient_of_each_step_has_noise_of_its_own():
    """A fixed one would lead most of the images with a wrong sign nowhere."""
    options = {"norm": "linf", "epsilon": 0.1, "noise_samples": 1, "restarts": 1, "steps": 50}
    found = apgd(jax.tree_util.Partial(noisy_slope), HEADS, **options)
    assert np.mean(found.images[:, 0] < 0.45) > 0.9


def test_the_luckiest_point_does_not_win():
    """Points that are compared under noise of their own would be ranked by it, not by the pixel.

    The margin falls by 0.2 over the whole budget, a fiftieth of the noise of one answer.
    """
    _, found = flipped(1, 0, 10)
    np.testing.assert_allclose(found.images[:, 0], 0.4, atol=1e-6)


def test_reported_margin_is_of_noise_that_the_attack_has_not_met():
    """A margin that the image cannot change: were the luckiest chosen, its mean would be low."""
    _, found = flipped(0, 0, 1, restarts=5)
    margin = found.found["margin"]
    assert abs(margin.mean()) < 4 / np.sqrt(COINS)
    assert margin.std() == pytest.approx(1, abs=0.15)


def test_the_known_noise_fools_the_answer_with_it_and_not_others():
    """With noise that outweighs what the budget can do, only the noise that is known matters."""
    classify, found = flipped(1, 20, 10, noise_samples=None)  # right in 98%
    success = found.found["success"]
    votes = np.asarray(reevaluate(classify, found.images, COIN_KEYS, repeats=50))
    assert 0 < success.mean() < 0.08
    np.testing.assert_array_equal(success, found.found["margin"] < 0)
    assert share_of(votes, np.zeros(COINS, int))[success].mean() > 0.9


def test_knowing_the_noise_is_stronger_on_a_noisy_model():
    """What it sees is at least what holds."""
    model = trained("vib")
    found = apgd(model, TASKS, epsilon=0.6, steps=50, noise_samples=None)
    independent = accuracy(model, found.images)
    assert 1 - found.found["success"].mean() <= independent + 0.05


def test_counts_below_one_are_refused():
    for key in ("steps", "restarts", "noise_samples"):
        with pytest.raises(ConfigError, match=f"{key}=0: must be at least 1"):
            settings("apgd", **{key: 0})
