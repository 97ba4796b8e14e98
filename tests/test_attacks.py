"""Attacks against closed forms, a reference in NumPy, foolbox, and noisy models."""

import functools
import math
from pathlib import Path

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from vibx import data
from vibx.attacks.black_box import noise, spsa, spsa_gradient
from vibx.attacks.carlini_wagner import (
    UNBOUNDED,
    CarliniWagnerSettings,
    ConstantSearch,
    carlini_wagner_l2,
    to_box,
    to_tanh_space,
)
from vibx.attacks.descent import project
from vibx.attacks.gradient import fgsm, margin_gradient, margin_gradients, pgd
from vibx.attacks.per_image import Goal, goals, image_keys
from vibx.attacks.scoring import norms, recheck, to_8_bits
from vibx.objectives import OBJECTIVES
from vibx.robustness.classifier import classifier
from vibx.training.state import model_definition, model_with, split

KEY = jax.random.key(7)
N = 20
KEYS = image_keys(KEY, np.arange(N))
norms_of_budgets = pytest.mark.parametrize("norm", ["l2", "linf"])
modes = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])


# Classifiers to attack


def linear(W, b, x, key):
    """Logits without noise."""
    return x @ W + b


def noisy_linear(W, b, x, key):
    """Logits with noise in weights and biases."""
    weights, bias = jax.random.split(key)
    return x @ (W + jax.random.normal(weights, W.shape)) + b + jax.random.normal(bias, b.shape)


def random_linear(classes, *, pixels=784, size=0.1, lead=0.0, function=linear):
    """Orthogonal weights, so that the largest other logit is the nearest; class 0 has a lead."""
    draw = np.random.default_rng(classes)
    W = size * np.sqrt(pixels) * np.linalg.qr(draw.normal(size=(pixels, classes)))[0]
    return jax.tree_util.Partial(function, jnp.float32(W), lead * jnp.eye(classes)[0])


def grey_images(n, pixels=784):
    """Images far from black and white, so that the box does not bind."""
    return np.random.default_rng(1).uniform(0.4, 0.6, (n, pixels)).astype(np.float32)


@functools.cache
def mnist(name, n):
    """The first images in [0, 1] and their labels."""
    directory = Path(data.__file__).parent / "mnist"
    pixels, labels = (
        data._read_idx(directory / f"{name}-{part}-ubyte.gz")[:n]
        for part in ("images-idx3", "labels-idx1")
    )
    return pixels.reshape(n, 784) / np.float32(255), labels.astype(np.int32)


IMAGES, LABELS = mnist("t10k", N)
TARGETS = (LABELS + 1 + np.arange(N) % 9) % 10


@functools.cache
def trained(name):
    """A small model after 150 steps on MNIST: about 90% accurate; with much noise if a VIB."""
    make = {"vib": tiny.vib, "deterministic": tiny.deterministic}[name]
    cfg = make(K=16, encoder=tiny.mlp(32))
    program, numbers = split(cfg)
    images, labels = mnist("train", 4096)
    adam = optax.adam(3e-3)

    def loss(weights, rows, key):
        x, y = 2 * jnp.asarray(images)[rows] - 1, jnp.asarray(labels)[rows]
        objective = OBJECTIVES[program.objective]
        model = model_with(program, weights)
        return objective(model, x, y, key=key, numbers=numbers, train_samples=1).objective.mean()

    def step(carry, key):
        weights, state = carry
        rows = jax.random.randint(key, (64,), 0, len(labels))
        update, state = adam.update(jax.grad(loss)(weights, rows, key), state)
        return (optax.apply_updates(weights, update), state), None

    weights = tiny.parameters(cfg)
    keys = jax.random.split(KEY, 150)
    (weights, _), _ = jax.jit(lambda w: jax.lax.scan(step, (w, adam.init(w)), keys))(weights)
    return classifier(model_definition(program), weights, samples=12)


def accuracy(classify, images):
    """On adversarial versions of the first images, under independent noise, 50 times each."""
    rows = np.arange(len(images))
    votes = recheck(classify, images, image_keys(jax.random.key(8), rows), repeats=50)
    return np.asarray(votes)[rows, LABELS[rows]].mean() / 50


# Goals


@given(
    logits=hnp.arrays(np.float32, 10, elements=st.floats(-50, 50, width=16)),
    of_class=st.integers(0, 9),
    targeted=st.booleans(),
    confidence=st.sampled_from([0.0, 1.0, 5.0]),
)
@settings(max_examples=60)
def test_goal_is_reached_where_the_margin_is_below_minus_kappa(
    logits, of_class, targeted, confidence
):
    goal = Goal(jnp.int32(of_class), jnp.bool_(targeted))
    others = np.delete(logits, of_class).max()
    expected = others - logits[of_class] if targeted else logits[of_class] - others
    assert float(goal.margin(jnp.asarray(logits))) == expected
    if expected != -confidence:  # a tie goes to the first class
        reached = goal.reached(jnp.asarray(logits), confidence)
        assert bool(reached) == (expected < -confidence)


# Carlini and Wagner: details of the specification


def test_constants_grow_tenfold_until_a_success_and_then_bisect():
    search = ConstantSearch.start(1, 1e-3)
    tried = []
    for succeeded in [False, False, True, False, True, True]:
        tried.append(float(search.constant[0]))
        search = search.narrowed(jnp.array([succeeded]), of=9)
    np.testing.assert_allclose(tried, [1e-3, 1e-2, 1e-1, 0.055, 0.0775, 0.06625], rtol=1e-5)
    np.testing.assert_allclose([search.lower[0], search.upper[0]], [0.055, 0.06625], rtol=1e-5)


def test_constants_halve_while_nothing_fails():
    search = ConstantSearch.start(1, 1.0)
    for _ in range(3):
        search = search.narrowed(jnp.array([True]), of=9)
    assert float(search.constant[0]) == 1 / 8


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_bounds_only_tighten(outcomes):
    search = ConstantSearch.start(1, 1e-3)
    for succeeded in outcomes:
        after = search.narrowed(jnp.array([succeeded]), of=9)
        assert search.lower <= after.lower <= after.constant
        assert after.constant <= after.upper <= search.upper or after.upper == UNBOUNDED
        search = after


@pytest.mark.parametrize("steps", [9, 10])
def test_the_last_of_ten_steps_repeats_the_upper_bound(steps):
    search, tried = ConstantSearch.start(1, 1e-3), []
    for _ in range(steps):
        tried.append(float(search.constant[0]))
        search = search.narrowed(jnp.array([False]), of=steps)
    np.testing.assert_allclose(tried[:9], 10.0 ** np.arange(-3, 6), rtol=1e-5)
    assert tried[9:] == [UNBOUNDED] * (steps - 9)


@pytest.mark.parametrize(("abort_early", "iterations"), [(True, 20), (False, 200)])
def test_failure_returns_the_original(abort_early, iterations):
    """A flat loss is seen at the first check: a tenth of each search step."""
    flat = jax.tree_util.Partial(linear, jnp.zeros((784, 10)), 5 * jnp.eye(10)[3])
    settings = CarliniWagnerSettings(search_steps=2, iterations=100, abort_early=abort_early)
    result = carlini_wagner_l2(flat, IMAGES, np.full(N, 3), KEYS, settings=settings)
    assert not result.success.any()
    assert not result.already.any()
    np.testing.assert_array_equal(result.images, IMAGES)
    np.testing.assert_array_equal(result.l2, np.inf)
    assert np.isnan(result.constant).all()
    np.testing.assert_array_equal(result.iterations, iterations)


def test_an_image_already_at_its_goal_is_found_before_the_first_update_and_counted():
    flat = jax.tree_util.Partial(linear, jnp.zeros((784, 10)), 5 * jnp.eye(10)[3])
    settings = CarliniWagnerSettings(search_steps=2, iterations=10, initial_constant=0.5)
    result = carlini_wagner_l2(flat, IMAGES, LABELS, KEYS, targets=np.full(N, 3), settings=settings)
    assert result.already.all()
    assert result.success.all()
    assert result.l2.max() < 1e-4
    np.testing.assert_array_equal(result.constant, 0.5)


def test_tanh_space_is_the_box():
    w = to_tanh_space(jnp.asarray([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(w, np.arctanh([-0.999999, -0.4999995, 0.999999]), rtol=1e-2)
    np.testing.assert_allclose(to_box(w), [0, 0.25, 1], atol=1e-6)
    extremes = to_box(jnp.asarray([-1e3, -20.0, 20.0, 1e3]))
    np.testing.assert_array_equal(extremes, [0, 0, 1, 1])


def test_iterations_must_divide_into_checks():
    with pytest.raises(ValueError, match="iterations=15: must be a multiple of 10"):
        CarliniWagnerSettings(iterations=15)


def reference(W, b, x, *, of_class, targeted, settings):
    """The specification by hand, for one image and a linear classifier, in float64."""
    W, b, x = (np.asarray(a, np.float64) for a in (W, b, x))
    w0 = np.arctanh((2 * x - 1) * 0.999999)
    x0 = (np.tanh(w0) + 1) / 2
    kappa, c, lower, upper = settings.confidence, settings.initial_constant, 0.0, 1e10
    best, taken = (math.inf, None), 0
    for step in range(settings.search_steps):
        if step == settings.search_steps - 1 >= 9:
            c = upper
        m, first, second = np.zeros_like(w0), np.zeros_like(w0), np.zeros_like(w0)
        succeeded, previous = False, math.inf
        for i in range(settings.iterations):
            image = (np.tanh(w0 + m) + 1) / 2
            logits = image @ W + b
            other = max((k for k in range(len(b)) if k != of_class), key=lambda k: logits[k])
            down, up = (other, of_class) if targeted else (of_class, other)
            f = max(0.0, logits[down] - logits[up] + kappa)
            squared_norm = np.sum((image - x0) ** 2)
            loss = squared_norm + c * f
            if settings.abort_early and i % (settings.iterations // 10) == 0:
                if loss > 0.9999 * previous:
                    break
                previous = loss
            taken += 1
            if f == 0:
                succeeded = True
                if squared_norm < best[0]:
                    best = (squared_norm, c)
            slope = 2 * (image - x0) + (c * (W[:, down] - W[:, up]) if f > 0 else 0)
            gradient = slope * (1 - np.tanh(w0 + m) ** 2) / 2
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            corrected = first / (1 - 0.9 ** (i + 1)), second / (1 - 0.999 ** (i + 1))
            m = m - 0.01 * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        if succeeded:
            upper = min(upper, c)
        else:
            lower = max(lower, c)
        c = (lower + upper) / 2 if upper < 1e10 else 10 * c
    return math.sqrt(best[0]), best[1], taken


@modes
@pytest.mark.parametrize(("confidence", "steps"), [(0.0, 10), (2.0, 7)])
def test_attack_is_the_specification_by_hand(targeted, confidence, steps):
    classify = random_linear(10)
    W, b = classify.args
    images = grey_images(6)
    labels = np.argmax(images @ W, axis=1)
    classes = (labels + 1) % 10 if targeted else labels
    settings = CarliniWagnerSettings(search_steps=steps, iterations=100, confidence=confidence)
    expected = [
        reference(W, b, x, of_class=y, targeted=targeted, settings=settings)
        for x, y in zip(images, classes, strict=True)
    ]
    result = carlini_wagner_l2(
        classify,
        images,
        labels,
        KEYS[:6],
        targets=classes if targeted else None,
        settings=settings,
    )
    l2, constant, iterations = zip(*expected, strict=True)
    np.testing.assert_allclose(result.l2, l2, rtol=1e-3)
    np.testing.assert_allclose(result.constant, constant, rtol=1e-5)
    np.testing.assert_array_equal(result.iterations, iterations)
    assert min(iterations) < steps * 100  # some of them stopped early


# Carlini and Wagner: what it finds


@pytest.mark.parametrize("confidence", [0.0, 2.0])
@pytest.mark.parametrize(("classes", "targeted"), [(10, False), (2, True)])
def test_the_smallest_perturbation_of_a_linear_classifier_is_found(classes, targeted, confidence):
    """The distance to the nearest hyperplane on which the margin is -kappa."""
    classify = random_linear(classes, lead=10.0)
    W, b = classify.args
    images = grey_images(N)
    logits = images @ W + b
    labels = np.argmax(logits, axis=1)
    second, first = np.sort(logits, axis=1)[:, -2:].T
    distances = (first - second + confidence) / np.linalg.norm(W[:, 0] - W[:, 1])
    settings = CarliniWagnerSettings(iterations=300, confidence=confidence)
    result = carlini_wagner_l2(
        classify, images, labels, KEYS, targets=1 - labels if targeted else None, settings=settings
    )
    assert result.success.all()
    np.testing.assert_allclose(result.l2, distances, rtol=0.01)


SHORT = CarliniWagnerSettings(search_steps=6, iterations=200, initial_constant=0.1)


@modes
def test_foolbox_finds_the_same(targeted):
    import foolbox  # slow to import

    n, classify = 12, trained("deterministic")
    settings = CarliniWagnerSettings(
        search_steps=3, iterations=60, learning_rate=0.05, initial_constant=1.0, abort_early=False
    )
    targets = TARGETS[:n] if targeted else None
    result = carlini_wagner_l2(
        classify, IMAGES[:n], LABELS[:n], KEYS[:n], targets=targets, settings=settings
    )
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=3, steps=60, stepsize=0.05, initial_const=1.0, abort_early=False
    )
    criterion = (
        foolbox.criteria.TargetedMisclassification(jnp.asarray(targets))
        if targeted
        else foolbox.criteria.Misclassification(jnp.asarray(LABELS[:n]))
    )
    model = foolbox.models.JAXModel(jax.jit(jax.vmap(lambda x: classify(x, KEY))), bounds=(0, 1))
    theirs, _, success = attack(model, jnp.asarray(IMAGES[:n]), criterion, epsilons=None)
    np.testing.assert_array_equal(result.success, success)
    compared = np.asarray(success & ~result.already)
    assert compared.sum() > n / 2
    ours, theirs = result.l2[compared], norms(IMAGES[:n], theirs).l2[compared]
    assert np.median(ours) == pytest.approx(np.median(theirs), rel=0.01)
    np.testing.assert_allclose(ours, theirs, rtol=0.03)


@pytest.fixture(scope="module")
def attacked():
    """A noisy model attacked with compaction."""
    return jax.device_get(
        carlini_wagner_l2(trained("vib"), IMAGES, LABELS, KEYS, targets=TARGETS, settings=SHORT)
    )


def test_results_stay_in_the_box(attacked):
    assert np.all((attacked.images >= 0) & (attacked.images <= 1))
    levels = to_8_bits(attacked.images)
    np.testing.assert_allclose(levels / 255, attacked.images, atol=0.5001 / 255)


def assert_same(result, expected):
    np.testing.assert_array_equal(result.success, expected.success)
    np.testing.assert_array_equal(result.already, expected.already)
    np.testing.assert_allclose(result.l2, expected.l2, rtol=2e-3, atol=1e-4)


def test_compaction_changes_nothing(attacked):
    assert len(set(attacked.iterations)) > 3  # there is something to compact
    result = carlini_wagner_l2(
        trained("vib"), IMAGES, LABELS, KEYS, targets=TARGETS, settings=SHORT, compact=False
    )
    assert_same(result, attacked)


def test_other_images_and_chunks_change_nothing(attacked):
    rows = slice(4, 14)
    result = carlini_wagner_l2(
        trained("vib"),
        IMAGES[rows],
        LABELS[rows],
        KEYS[rows],
        targets=TARGETS[rows],
        settings=SHORT,
        chunk=5,
    )
    assert_same(result, jax.tree.map(lambda leaf: leaf[rows], attacked))


def test_a_key_fixes_the_result_and_another_key_is_other_noise(attacked):
    def run(keys):
        return carlini_wagner_l2(
            trained("vib"), IMAGES, LABELS, keys, targets=TARGETS, settings=SHORT
        )

    np.testing.assert_array_equal(run(KEYS).images, attacked.images)
    others = image_keys(jax.random.key(9), np.arange(N))
    assert np.mean(run(others).l2 != attacked.l2) > 0.5


def test_other_weights_and_settings_compile_nothing():
    traces = []

    def counted(W, b, x, key):
        traces.append(1)
        return linear(W, b, x, key)

    classify = random_linear(10, function=counted)

    def run(factor, **changes):
        scaled = jax.tree.map(lambda leaf: factor * leaf, classify)
        settings = CarliniWagnerSettings(iterations=10, **changes)
        carlini_wagner_l2(scaled, IMAGES, LABELS, KEYS, targets=TARGETS, settings=settings)

    run(1, search_steps=1)
    before = len(traces)
    run(2, search_steps=2, confidence=3.0, learning_rate=0.1, abort_early=False)
    assert len(traces) == before


def test_progress_rises_to_the_end():
    told = []
    settings = CarliniWagnerSettings(search_steps=2, iterations=10)
    carlini_wagner_l2(
        random_linear(10),
        IMAGES,
        LABELS,
        KEYS,
        settings=settings,
        on_progress=told.append,
        chunk=10,
    )
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)


def test_fresh_noise_undoes_success_without_confidence():
    """Kept for the luckiest of noisy iterates at kappa = 0; at kappa = 1 for its margin."""
    left = {}
    for confidence in (0.0, 1.0):
        settings = CarliniWagnerSettings(
            search_steps=6, iterations=200, initial_constant=0.1, confidence=confidence
        )
        result = carlini_wagner_l2(trained("vib"), IMAGES, LABELS, KEYS, settings=settings)
        assert result.success.mean() > 0.9
        left[confidence] = accuracy(trained("vib"), result.images)
    assert left[0.0] > 0.5
    assert left[1.0] < 0.2


# Attacks within a budget


boxes = hnp.arrays(np.float32, 12, elements=st.floats(0, 1, width=32))
anywhere = hnp.arrays(np.float32, 12, elements=st.floats(-3, 3, width=16))
budgets = st.floats(0, 2, width=16)


compiled_project = jax.jit(project, static_argnames="norm")


@norms_of_budgets
@given(origin=boxes, point=anywhere, inside=boxes, epsilon=budgets)
@settings(max_examples=100)
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
    options = {"norm": norm, "epsilon": 0.05, "targets": 1 - labels if targeted else None}
    one = fgsm(classify, images, labels, KEYS, **options)
    many = pgd(classify, images, labels, KEYS, step_size=0.25, steps=100, **options)
    np.testing.assert_allclose(one, expected, atol=1e-6)
    np.testing.assert_allclose(many, expected, atol=2e-4)


def test_many_steps_beat_one_where_the_box_binds():
    """The optimum is the scaled direction clipped to the box, at the full budget."""
    classify = random_linear(2)
    W, _ = classify.args
    labels = np.argmax(IMAGES @ W, axis=1)
    margins = jax.vmap(lambda goal, x: goal.margin(classify(x, KEY)))
    one = fgsm(classify, IMAGES, labels, KEYS, norm="l2", epsilon=2.0)
    many = pgd(classify, IMAGES, labels, KEYS, norm="l2", epsilon=2.0, step_size=0.25, steps=100)
    towards = np.where(labels[:, None] == 0, W[:, 1] - W[:, 0], W[:, 0] - W[:, 1])
    optimum = jax.vmap(functools.partial(project, norm="l2", epsilon=2.0))(
        IMAGES + 100 * towards, IMAGES
    )
    assert np.all(norms(IMAGES, one).l2 < 1.9)
    np.testing.assert_allclose(norms(IMAGES, many).l2, 2, rtol=1e-5)
    at = {
        name: margins(goals(labels, None), images)
        for name, images in {"one": one, "many": many, "optimum": optimum}.items()
    }
    assert np.all(at["many"] < at["one"])
    np.testing.assert_allclose(at["many"], at["optimum"], rtol=1e-3, atol=1e-3)


@norms_of_budgets
def test_attacks_keep_box_and_budget_of_each_image(norm):
    epsilon = np.linspace(0.01, 0.3 if norm == "linf" else 3, N).astype(np.float32)
    options = {"norm": norm, "epsilon": epsilon}
    found = [
        fgsm(trained("deterministic"), IMAGES, LABELS, KEYS, **options),
        pgd(trained("deterministic"), IMAGES, LABELS, KEYS, step_size=0.1, steps=5, **options),
        noise(IMAGES, KEYS, **options),
    ]
    for images in found:
        length = getattr(norms(IMAGES, images), norm)
        assert np.all((images >= 0) & (images <= 1))
        assert np.all(length <= epsilon * (1 + 1e-5))
    np.testing.assert_allclose(getattr(norms(IMAGES, found[-1]), norm), epsilon, rtol=1e-4)


def test_gradient_of_many_keys_is_the_mean_of_those_of_one():
    """Noise in the weights: the true gradient is that of the mean weights."""
    classify = random_linear(2, pixels=4, size=1.0, function=noisy_linear)
    W, _ = classify.args
    image, goal = jnp.full(4, 0.5), Goal(jnp.int32(0), jnp.bool_(False))

    def gradients(noise_samples):
        gradient = functools.partial(margin_gradient, classify, goal, noise_samples=noise_samples)
        return jax.jit(jax.vmap(gradient, (None, 0)))(image, jax.random.split(KEY, 2000))

    single, averaged = gradients(1), gradients(8)
    for draws in (single, averaged):
        tiny.assert_mean(draws, W[:, 0] - W[:, 1])
    np.testing.assert_allclose(np.var(single, axis=0) / np.var(averaged, axis=0), 8, rtol=0.25)


def test_margin_gradients_are_not_masked_by_a_sure_model():
    """Cross-entropy's gradient is exactly zero here."""
    classify = random_linear(10, size=30.0)
    labels = np.argmax(IMAGES @ classify.args[0], axis=1)
    gradients = margin_gradients(classify, IMAGES, labels, KEYS)
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
    estimate = spsa_gradient(gives_away, goal, jnp.eye(6)[0], KEY, directions=8, delta=0.1)
    assert np.isfinite(estimate).all()


def test_values_are_enough_to_fool_a_noisy_model_and_random_noise_is_not():
    options = {"norm": "l2", "epsilon": 2.5}
    model, images, labels, keys = trained("vib"), IMAGES[:10], LABELS[:10], KEYS[:10]
    random = noise(images, keys, **options)
    found = spsa(model, images, labels, keys, step_size=0.2, steps=20, directions=64, **options)
    assert accuracy(model, images) > 0.8
    assert accuracy(model, random) > accuracy(model, images) - 0.15
    assert accuracy(model, found) < 0.2


def test_keys_fix_random_attacks():
    others = image_keys(jax.random.key(9), np.arange(N))
    noisy = random_linear(2, function=noisy_linear)
    options = {"norm": "l2", "epsilon": 1.0}
    attacks = [
        functools.partial(noise, IMAGES, **options),
        functools.partial(pgd, noisy, IMAGES, LABELS % 2, step_size=0.1, steps=5, **options),
    ]
    for attack in attacks:
        np.testing.assert_array_equal(attack(KEYS), attack(KEYS))
        assert not np.any(np.all(attack(KEYS) == attack(others), axis=1))


# Scoring


def test_norms_by_hand():
    images = np.zeros((1, 5), np.float32)
    found = norms(images, np.float32([[0.5, 0.04, 0.002, 0.0019, 0]]))
    assert found.l0_8_bits[0] == 3  # 0.5 / 255 is 0.00196
    assert found.l0_visible[0] == 1
    assert found.l2[0] == pytest.approx(math.sqrt(0.25 + 0.0016 + 4e-6 + 3.61e-6))
    assert found.linf[0] == 0.5


def test_eight_bit_levels_are_images_again():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_8_bits(levels / np.float32(255)), levels)
    assert to_8_bits(np.float32([0.0019, 0.0020, 0.9981, 1])).tolist() == [0, 1, 255, 255]


def test_recheck_of_a_deterministic_model_is_unanimous():
    votes = np.asarray(recheck(trained("deterministic"), IMAGES, KEYS, repeats=9))
    predicted = np.argmax(jax.vmap(trained("deterministic"))(IMAGES, KEYS), axis=1)
    np.testing.assert_array_equal(votes, 9 * np.eye(10)[predicted])


def test_recheck_counts_independent_votes():
    """Class 0 leads by 1 under N(0, 1) noise on each of two logits."""
    classify = jax.tree_util.Partial(lambda x, key: x[:2] + jax.random.normal(key, 2))
    images = np.tile(np.float32([1, 0, 0, 0]), (50, 1))
    votes = np.asarray(recheck(classify, images, image_keys(KEY, np.arange(50)), repeats=200))
    p = scipy.stats.norm.cdf(1 / math.sqrt(2))
    np.testing.assert_array_equal(votes.sum(axis=1), 200)
    tiny.assert_mean(votes[:, 0] / 200, p)
    # Binomial: images have noise of their own.
    assert np.var(votes[:, 0]) == pytest.approx(200 * p * (1 - p), rel=0.6)
