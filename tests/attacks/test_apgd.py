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
from vibx.attacks.descent import project
from vibx.attacks.per_image import Goal, image_keys, perturb, tasks
from vibx.attacks.scoring import norms, reevaluate, share_of
from vibx.errors import ConfigError

vibx.attacks.import_modules()
TASKS = tasks(IMAGES, LABELS, KEYS)
QUICK = {"steps": 20, "restarts": 2, "noise_samples": 4}
norms_of_budgets = pytest.mark.parametrize("norm", ["l2", "linf"])
modes = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


def apgd(classify, wanted, **changes):
    attack = settings("apgd", **QUICK | changes)
    found = perturb(attack, classify, wanted, on_progress=lambda fraction: None)
    return jax.device_get(found)


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
    found = apgd(classify, wanted, norm="l2", epsilon=2.0, steps=100)
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
    model, budget = trained("deterministic"), {"norm": norm, "epsilon": 1.0}
    budget["epsilon"] = 0.1 if norm == "linf" else 1.0
    ours = apgd(model, TASKS, **budget, steps=50, restarts=1)
    attack = settings("pgd", **budget, steps=50)
    pgd = perturb(attack, model, TASKS, on_progress=lambda fraction: None)
    difference = margins(model, TASKS, ours.images) - margins(model, TASKS, pgd.images)
    assert np.mean(difference) < 0


# Every model


@norms_of_budgets
@given(epsilon=st.floats(1e-3, 8), seed=st.integers(0, 99), noise_samples=st.sampled_from([4, 0]))
@sized(max_examples=15, deadline=None)
def test_never_outside_ball_and_box(norm, epsilon, seed, noise_samples):
    wanted = tasks(IMAGES, LABELS, image_keys(jax.random.key(seed), np.arange(N)))
    budget = {"norm": norm, "epsilon": epsilon / (10 if norm == "linf" else 1)}
    found = apgd(trained("vib"), wanted, **budget, noise_samples=noise_samples or None, steps=4)
    assert np.all((found.images >= 0) & (found.images <= 1))
    assert np.all(
        getattr(norms(IMAGES, found.images), norm) <= budget["epsilon"] * (1 + 1e-5) + 1e-7
    )


@norms_of_budgets
@pytest.mark.parametrize("noise_samples", [4, None])
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
    model, rows = trained("vib"), slice(4, 9)
    whole = apgd(model, TASKS, noise_samples=noise_samples)
    some = apgd(model, jax.tree.map(lambda leaf: leaf[rows], TASKS), noise_samples=noise_samples)
    # Rounding in matrix products of another size can choose another point of almost equal margin.
    np.testing.assert_allclose(some.found["margin"], whole.found["margin"][rows], atol=0.05)
    same = np.abs(some.images - whole.images[rows]).max(axis=1) < 1e-3
    assert same.mean() >= 0.6


def test_starts_aim_at_the_classes_in_turn_the_likeliest_first():
    logits = jnp.asarray([1.0, 4.0, 3.0, 2.0])

    def aims(goal):
        found = [aim_of_start(goal, logits, i) for i in range(6)]
        return [(int(aim.label), bool(aim.targeted)) for aim in found]

    away, towards = (Goal(jnp.int32(2), jnp.bool_(targeted)) for targeted in (False, True))
    own = (2, False)
    assert aims(away) == [own, (1, True), (3, True), (0, True), own, (1, True)]
    assert aims(towards) == [(2, True)] * 6


# Noise


def coin(bias, x, key):
    """Two logits whose lead is x's first pixel less a bias, with noise far above it."""
    lead = x[0] - bias + 10 * jax.random.normal(key)
    return jnp.stack([lead, jnp.zeros(())])


def test_the_luckiest_point_does_not_win():
    """Points that are compared under noise of their own would be ranked by it, not by the pixel.

    The margin falls by 0.2 over the whole budget, a fiftieth of the noise of one answer.
    """
    classify = jax.tree_util.Partial(coin, jnp.float32(0))
    images = np.full((N, 784), 0.5, np.float32)
    wanted = tasks(images, np.zeros(N, int), KEYS)
    found = apgd(classify, wanted, norm="linf", epsilon=0.1, noise_samples=1)
    np.testing.assert_allclose(found.images[:, 0], 0.4, atol=1e-6)


def test_reported_margin_is_of_noise_that_the_attack_has_not_met():
    """A margin that the image cannot change: were the luckiest chosen, its mean would be low."""

    def chance(x, key):
        return jnp.stack([jax.random.normal(key) + 0 * x[0], jnp.zeros(())])

    n = 400
    images = np.full((n, 4), 0.5, np.float32)
    wanted = tasks(images, np.zeros(n, int), image_keys(KEY, np.arange(n)))
    found = apgd(jax.tree_util.Partial(chance), wanted, noise_samples=1, restarts=5)
    margin = found.found["margin"]
    assert abs(margin.mean()) < 4 / np.sqrt(n)
    assert margin.std() == pytest.approx(1, abs=0.15)


def test_the_known_noise_fools_the_answer_with_it_and_not_others():
    """With noise that outweighs what the budget can do, only the noise that is known matters."""
    classify = jax.tree_util.Partial(coin, jnp.float32(-20))  # right in 98% of answers
    n = 200
    images, keys = np.full((n, 4), 0.5, np.float32), image_keys(KEY, np.arange(n))
    wanted = tasks(images, np.zeros(n, int), keys)
    found = apgd(classify, wanted, norm="linf", epsilon=0.1, noise_samples=None)
    votes = np.asarray(reevaluate(classify, found.images, keys, repeats=50))
    assert 0 < found.found["success"].mean() < 0.08
    assert share_of(votes, np.zeros(n, int))[found.found["success"]].mean() > 0.9


def test_knowing_the_noise_is_stronger_on_a_noisy_model():
    """What it sees is at least what holds; both fall with the budget."""
    model = trained("vib")
    found = apgd(model, TASKS, epsilon=0.6, steps=50, noise_samples=None)
    independent = accuracy(model, found.images)
    assert 1 - found.found["success"].mean() <= independent + 0.05


def test_counts_below_one_are_refused():
    for key in ("steps", "restarts", "noise_samples"):
        with pytest.raises(ConfigError, match=f"{key}=0: must be at least 1"):
            settings("apgd", **{key: 0})
