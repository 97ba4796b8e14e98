"""Attacks within a budget: projection, optima of linear models, gradients, and noisy models."""

import functools

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as sized
from hypothesis import strategies as st

import vibx.attacks
from tests import tiny
from tests.attacks.models import (
    IMAGES,
    KEY,
    KEYS,
    LABELS,
    N,
    accuracy,
    grey_images,
    linear,
    noisy_linear,
    random_linear,
    settings,
    trained,
)
from vibx.attacks.black_box import spsa_gradient
from vibx.attacks.descent import attack_within_budget, project, projected_descent
from vibx.attacks.gradient import margin_gradient, margin_gradients
from vibx.attacks.per_image import Goal, image_keys, perturb, tasks
from vibx.attacks.scoring import norms
from vibx.tracing import traceable

vibx.attacks.import_modules()
TASKS = tasks(IMAGES, LABELS, KEYS)
norms_of_budgets = pytest.mark.parametrize("norm", ["l2", "linf"])
modes = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


def found(name, classify, wanted, **changes):
    """The images that an attack of conf/ finds, with changes."""
    told = perturb(settings(name, **changes), classify, wanted, on_progress=lambda fraction: None)
    return told.images


boxes = hnp.arrays(np.float32, 12, elements=st.floats(0, 1, width=32))
anywhere = hnp.arrays(np.float32, 12, elements=st.floats(-3, 3, width=16))
budgets = st.floats(0, 2, width=16)


compiled_project = jax.jit(project, static_argnames="norm")


@norms_of_budgets
@given(origin=boxes, point=anywhere, inside=boxes, epsilon=budgets)
@sized(max_examples=100)
def test_projection_is_the_nearest_point_of_ball_and_box(norm, origin, point, inside, epsilon):
    """A convex set's nearest point p: (point - p)'(q - p) <= 0 for all q of the set."""

    def projected(point):
        return np.asarray(compiled_project(point, origin, norm=norm, epsilon=epsilon))

    p, q = projected(point), projected(inside)
    length = np.max(np.abs(p - origin)) if norm == "linf" else np.linalg.norm(p - origin)
    assert np.all((p >= 0) & (p <= 1))
    assert length <= epsilon * (1 + 1e-6) + 1e-7
    assert np.dot(point - p, q - p) < 1e-4
    np.testing.assert_allclose(projected(p), p, atol=1e-6)


@norms_of_budgets
@modes
def test_one_step_and_many_are_optimal_on_a_linear_classifier(norm, targeted):
    """Away from the box, the margin falls by epsilon times the dual norm of the gradient."""
    classify = random_linear(2)
    W, _ = classify.args
    images = grey_images(N)
    labels = np.argmax(images @ W, axis=1)
    towards = np.where(labels[:, None] == 0, W[:, 1] - W[:, 0], W[:, 0] - W[:, 1])
    length = np.linalg.norm(towards[0])
    direction = np.sign(towards) if norm == "linf" else towards / length
    expected = images + 0.05 * direction
    wanted = tasks(images, labels, KEYS, targets=1 - labels if targeted else None)
    options = {"norm": norm, "epsilon": 0.05}
    one = found("fgsm", classify, wanted, **options)
    many = found("pgd", classify, wanted, step_size=0.25, steps=100, **options)
    np.testing.assert_allclose(one, expected, atol=1e-6)
    np.testing.assert_allclose(many, expected, atol=2e-4)


def test_many_steps_beat_one_where_the_box_binds():
    """The optimum is the scaled direction clipped to the box, at the full budget."""
    classify = random_linear(2)
    W, _ = classify.args
    labels = np.argmax(IMAGES @ W, axis=1)
    margins = jax.vmap(lambda goal, x: goal.margin(classify(x, KEY)))
    wanted = tasks(IMAGES, labels, KEYS)
    one = found("fgsm", classify, wanted, norm="l2", epsilon=2.0)
    many = found("pgd", classify, wanted, norm="l2", epsilon=2.0, step_size=0.25, steps=100)
    towards = np.where(labels[:, None] == 0, W[:, 1] - W[:, 0], W[:, 0] - W[:, 1])
    optimum = jax.vmap(functools.partial(project, norm="l2", epsilon=2.0))(
        IMAGES + 100 * towards, IMAGES
    )
    assert np.all(norms(IMAGES, one).l2 < 1.9)
    np.testing.assert_allclose(norms(IMAGES, many).l2, 2, rtol=1e-5)
    at = {
        name: margins(wanted.goal, images)
        for name, images in {"one": one, "many": many, "optimum": optimum}.items()
    }
    assert np.all(at["many"] < at["one"])
    np.testing.assert_allclose(at["many"], at["optimum"], rtol=1e-3, atol=1e-3)


@norms_of_budgets
def test_attacks_keep_box_and_budget_of_each_image(norm):
    epsilon = np.linspace(0.01, 0.3 if norm == "linf" else 3, N).astype(np.float32)
    lengths = {}
    for name, options in {"fgsm": {}, "pgd": {"steps": 5}, "noise": {}}.items():
        attack = traceable(settings(name, norm=norm, **options))
        images = np.asarray(attack_within_budget(attack, trained("deterministic"), TASKS, epsilon))
        lengths[name] = getattr(norms(IMAGES, images), norm)
        assert np.all((images >= 0) & (images <= 1))
        assert np.all(lengths[name] <= epsilon * (1 + 1e-5))
    np.testing.assert_allclose(lengths["noise"], epsilon, rtol=1e-4)


def test_gradient_of_many_keys_is_the_mean_of_those_of_one():
    """Noise in the weights: the true gradient is that of the mean weights."""
    classify = random_linear(2, pixels=4, size=1.0, function=noisy_linear)
    W, _ = classify.args
    image, goal = jnp.full(4, 0.5), Goal(jnp.int32(0), jnp.bool_(False))

    def gradients(noise_samples):
        gradient = functools.partial(margin_gradient, classify, goal, noise_samples=noise_samples)
        draws = jax.jit(jax.vmap(gradient, (None, 0)))(image, jax.random.split(KEY, 2000))
        return np.asarray(draws)

    single, averaged = gradients(1), gradients(8)
    for draws in (single, averaged):
        tiny.assert_mean(draws, W[:, 0] - W[:, 1])
    np.testing.assert_allclose(np.var(single, axis=0) / np.var(averaged, axis=0), 8, rtol=0.25)


@norms_of_budgets
def test_without_a_gradient_descent_stays_where_it_starts(norm):
    """Rounding has a gradient of zero that the compiler knows."""
    flat = jax.tree_util.Partial(lambda x, key: jnp.round(x)[:10])
    images = found("pgd", flat, TASKS, norm=norm, epsilon=0.5, steps=3)
    lengths = getattr(norms(IMAGES, images), norm)
    assert np.all((images >= 0) & (images <= 1))
    assert np.all((lengths > 0.1) & (lengths <= 0.5 + 1e-5))
    fewer = found("pgd", flat, TASKS, norm=norm, epsilon=0.5, steps=1)
    np.testing.assert_array_equal(images, fewer)


def test_each_step_has_noise_of_its_own():
    """With the same noise each time the path would be straight, and as long as all steps."""
    grey, steps = jnp.full(100, 0.5), {"step_size": 0.01, "steps": 25}

    def noise(x, key):
        return jax.random.normal(key, x.shape)

    end = projected_descent(noise, grey, grey, KEY, norm="l2", epsilon=1.0, **steps)
    assert jnp.linalg.norm(end - grey) < 0.5 * 25 * 0.01


def test_margin_gradients_are_not_masked_by_a_sure_model():
    """Cross-entropy's gradient is exactly zero here."""
    classify = random_linear(10, size=30.0)
    labels = np.argmax(IMAGES @ classify.args[0], axis=1)
    gradients = np.asarray(margin_gradients(classify, tasks(IMAGES, labels, KEYS)))
    assert np.isfinite(gradients).all()
    assert np.all(np.abs(gradients).max(axis=1) > 1)


@pytest.mark.parametrize("function", [linear, noisy_linear])
def test_spsa_estimates_the_gradient_from_values(function):
    """Without bias where the margin is linear, also for black and white pixels."""
    classify = random_linear(2, pixels=6, size=1.0, function=function)
    W, _ = classify.args
    image, goal = jnp.asarray([0, 0.02, 0.3, 0.6, 0.95, 1]), Goal(jnp.int32(0), jnp.bool_(False))
    estimate = functools.partial(spsa_gradient, classify, goal, directions=8, delta=0.1)
    draws = jax.jit(jax.vmap(estimate, (None, 0)))(image, jax.random.split(KEY, 4000))
    tiny.assert_mean(draws, W[:, 0] - W[:, 1])


def test_spsa_stays_in_the_box():
    def gives_away(x, key):
        inside = jnp.all((x >= 0) & (x <= 1))
        return jnp.where(inside, x[:2], jnp.nan)

    goal = Goal(jnp.int32(0), jnp.bool_(False))
    estimate = functools.partial(spsa_gradient, gives_away, goal, directions=8, delta=0.1)
    assert np.isfinite(jax.jit(estimate)(jnp.eye(6)[0], KEY)).all()


def test_values_are_enough_to_fool_a_noisy_model_and_random_noise_is_not():
    model, images = trained("vib"), IMAGES[:8]
    wanted = jax.tree.map(lambda leaf: leaf[:8], TASKS)
    random = found("noise", model, wanted, epsilon=2.5)
    fooling = found("spsa", model, wanted, epsilon=2.5, step_size=0.2, steps=20, directions=64)
    assert accuracy(model, images) > 0.8
    assert accuracy(model, random) > accuracy(model, images) - 0.15
    assert accuracy(model, fooling) < 0.2


def test_keys_fix_random_attacks():
    others = image_keys(jax.random.key(9), np.arange(N))
    noisy = random_linear(2, function=noisy_linear)
    for name, options in {"noise": {}, "pgd": {"steps": 5}}.items():

        def attack(keys, name=name, options=options):
            return found(name, noisy, tasks(IMAGES, LABELS % 2, keys), **options)

        np.testing.assert_array_equal(attack(KEYS), attack(KEYS))
        assert not np.any(np.all(attack(KEYS) == attack(others), axis=1))
