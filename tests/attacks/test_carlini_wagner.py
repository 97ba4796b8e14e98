"""Carlini and Wagner's attack against a reference in NumPy, closed forms, foolbox, and noise."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from tests.attacks.models import (
    IMAGES,
    KEY,
    KEYS,
    LABELS,
    TARGETS,
    N,
    accuracy,
    grey_images,
    linear,
    random_linear,
    settings,
    trained,
)
from vibx.attacks import carlini_wagner
from vibx.attacks.carlini_wagner import (
    UNBOUNDED,
    ConstantSearch,
    carlini_wagner_l2,
    run_segments,
    start,
    to_box,
    to_tanh_space,
)
from vibx.attacks.per_image import image_keys, tasks
from vibx.attacks.scoring import norms, reevaluate, share_of, to_8_bits
from vibx.errors import ConfigError
from vibx.robustness.classifier import classifier
from vibx.tracing import traceable
from vibx.training.state import model_definition

NAME = "carlini_wagner_l2"
TASKS = tasks(IMAGES, LABELS, KEYS, targets=TARGETS)
modes = pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
# One compilation does for these linear classifiers.
FEW = 6
GREY = grey_images(FEW, pixels=100)
FLAT = jax.tree_util.Partial(linear, jnp.zeros((100, 10)), 5 * jnp.eye(10)[3])


# Details of the specification


def test_constants_grow_tenfold_until_a_success_and_then_bisect():
    search = ConstantSearch.start(1, 1e-3)
    tried = []
    for succeeded in [False, False, True, False, True, True]:
        tried.append(float(search.constant[0]))
        search = search.narrowed(jnp.array([succeeded]), search_steps=9)
    np.testing.assert_allclose(tried, [1e-3, 1e-2, 1e-1, 0.055, 0.0775, 0.06625], rtol=1e-5)
    np.testing.assert_allclose([search.lower[0], search.upper[0]], [0.055, 0.06625], rtol=1e-5)


def test_constants_halve_while_nothing_fails():
    search = ConstantSearch.start(1, 1.0)
    for _ in range(3):
        search = search.narrowed(jnp.array([True]), search_steps=9)
    assert float(search.constant[0]) == 1 / 8


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_bounds_only_tighten(outcomes):
    search = ConstantSearch.start(1, 1e-3)
    for succeeded in outcomes:
        after = search.narrowed(jnp.array([succeeded]), search_steps=9)
        assert search.lower <= after.lower <= after.constant
        assert after.constant <= after.upper <= search.upper or after.upper == UNBOUNDED
        search = after


@pytest.mark.parametrize("steps", [9, 10])
def test_the_last_of_ten_steps_repeats_the_upper_bound(steps):
    search, tried = ConstantSearch.start(1, 1e-3), []
    for _ in range(steps):
        tried.append(float(search.constant[0]))
        search = search.narrowed(jnp.array([False]), search_steps=steps)
    np.testing.assert_allclose(tried[:9], 10.0 ** np.arange(-3, 6), rtol=1e-5)
    assert tried[9:] == [UNBOUNDED] * (steps - 9)


@pytest.mark.parametrize(("abort_early", "iterations"), [(True, 20), (False, 200)])
def test_failure_returns_the_original(abort_early, iterations):
    """A flat loss is seen after the first segment: a tenth of each search step."""
    attack = settings(NAME, search_steps=2, iterations=100, abort_early=abort_early)
    result = carlini_wagner_l2(attack, FLAT, tasks(GREY, np.full(FEW, 3), KEYS[:FEW]))
    assert not result.success.any()
    assert not result.already.any()
    np.testing.assert_array_equal(result.images, GREY)
    np.testing.assert_array_equal(result.l2, np.inf)
    assert np.isnan(result.constant).all()
    np.testing.assert_array_equal(result.iterations, iterations)


def test_an_image_already_at_its_goal_is_found_before_the_first_update_and_counted():
    attack = settings(NAME, search_steps=2, iterations=100, initial_constant=0.5)
    wanted = tasks(GREY, LABELS[:FEW], KEYS[:FEW], targets=np.full(FEW, 3))
    result = carlini_wagner_l2(attack, FLAT, wanted)
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


def test_iterations_must_divide_into_segments():
    with pytest.raises(ConfigError, match="iterations=15: must be a multiple of 10"):
        settings(NAME, iterations=15)


def reference(W, b, x, *, label, targeted, settings):
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
            other = max((k for k in range(len(b)) if k != label), key=lambda k: logits[k])
            down, up = (other, label) if targeted else (label, other)
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
    classify = random_linear(10, pixels=100)
    W, b = classify.args
    labels = np.argmax(GREY @ W, axis=1)
    classes = (labels + 1) % 10 if targeted else labels
    attack = settings(NAME, search_steps=steps, iterations=100, confidence=confidence)
    expected = [
        reference(W, b, x, label=y, targeted=targeted, settings=attack)
        for x, y in zip(GREY, classes, strict=True)
    ]
    wanted = tasks(GREY, labels, KEYS[:FEW], targets=classes if targeted else None)
    result = carlini_wagner_l2(attack, classify, wanted)
    l2, constant, iterations = zip(*expected, strict=True)
    np.testing.assert_allclose(result.l2, l2, rtol=1e-3)
    np.testing.assert_allclose(result.constant, constant, rtol=1e-5)
    np.testing.assert_array_equal(result.iterations, iterations)
    assert min(iterations) < steps * 100  # some of them stopped early


# What it finds


@pytest.mark.parametrize("confidence", [0.0, 2.0])
@pytest.mark.parametrize(("classes", "targeted"), [(10, False), (2, True)])
def test_the_smallest_perturbation_of_a_linear_classifier_is_found(classes, targeted, confidence):
    """The distance to the nearest hyperplane on which the margin is -kappa."""
    classify = random_linear(classes, lead=10.0)
    W, b = classify.args
    images = grey_images(8)
    logits = images @ W + b
    labels = np.argmax(logits, axis=1)
    second, first = np.sort(logits, axis=1)[:, -2:].T
    distances = (first - second + confidence) / np.linalg.norm(W[:, 0] - W[:, 1])
    attack = settings(NAME, iterations=300, confidence=confidence)
    wanted = tasks(images, labels, KEYS[:8], targets=1 - labels if targeted else None)
    result = carlini_wagner_l2(attack, classify, wanted)
    assert result.success.all()
    np.testing.assert_allclose(result.l2, distances, rtol=0.01)


SHORT = settings(NAME, search_steps=5, iterations=100, learning_rate=0.02, initial_constant=0.1)


@modes
def test_foolbox_finds_the_same(targeted):
    import foolbox  # slow to import

    n, classify = 12, trained("deterministic")
    ours = settings(
        NAME,
        search_steps=3,
        iterations=60,
        learning_rate=0.05,
        initial_constant=1.0,
        abort_early=False,
    )
    targets = TARGETS[:n] if targeted else None
    wanted = tasks(IMAGES[:n], LABELS[:n], KEYS[:n], targets=targets)
    result = carlini_wagner_l2(ours, classify, wanted)
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
    """A noisy model attacked with compaction, to a half and a quarter of the batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carlini_wagner, "SMALLEST_BATCH", N // 4)
        return jax.device_get(carlini_wagner_l2(SHORT, trained("vib"), TASKS))


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
    result = carlini_wagner_l2(SHORT, trained("vib"), TASKS, compact=False)
    assert_same(result, attacked)


def test_other_images_and_chunks_change_nothing(attacked):
    rows = slice(4, 14)
    some = jax.tree.map(lambda leaf: leaf[rows], TASKS)
    result = carlini_wagner_l2(SHORT, trained("vib"), some, chunk=5)
    assert_same(result, jax.tree.map(lambda leaf: leaf[rows], attacked))


def test_a_key_fixes_the_result_and_another_key_is_other_noise(attacked):
    def run(keys):
        return carlini_wagner_l2(SHORT, trained("vib"), TASKS._replace(key=keys))

    first = run(KEYS)
    np.testing.assert_array_equal(run(KEYS).images, first.images)
    assert_same(first, attacked)
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
        carlini_wagner_l2(settings(NAME, iterations=10, **changes), scaled, TASKS)

    run(1, search_steps=1)
    before = len(traces)
    run(2, search_steps=2, confidence=3.0, learning_rate=0.1, abort_early=False)
    assert len(traces) == before


def test_progress_rises_to_the_end():
    told = []
    attack = settings(NAME, search_steps=2, iterations=100)
    wanted = tasks(np.tile(GREY, (2, 1)), LABELS[: 2 * FEW], KEYS[: 2 * FEW])
    classify = random_linear(10, pixels=100)
    carlini_wagner_l2(attack, classify, wanted, on_progress=told.append, chunk=FEW)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)


# Votes


def noisy_logits(W, b, size, x, key):
    """Logits with independent noise of a size."""
    return x @ W + b + size * jax.random.normal(key, b.shape)


def noisy_scale(W, b, size, x, key):
    """Logits whose scale alone is noise: no answer changes, but every loss does."""
    return (x @ W + b) * jnp.exp(size * jax.random.normal(key))


class TwoClasses:
    """Eight images before a linear classifier with noise, and how far each must go.

    The lead of an image that moved by d across the boundary is Gaussian with mean w d - lead.
    """

    def __init__(self, function, size):
        exact = random_linear(2, lead=10.0)
        self.W, b = exact.args
        self.images = grey_images(8)
        logits = self.images @ self.W + b
        self.labels = np.argmax(logits, axis=1)
        self.lead = np.abs(logits[:, 0] - logits[:, 1])
        self.slope = np.linalg.norm(self.W[:, 0] - self.W[:, 1])
        self.size = size * self.lead.mean() / np.sqrt(2)  # of the noise, whose difference counts
        argument = self.size if function is noisy_logits else size
        self.classify = jax.tree_util.Partial(function, self.W, b, jnp.float32(argument))

    def distance(self, level):
        """Where the probability that an answer is wrong is the level."""
        return (self.lead + np.sqrt(2) * self.size * scipy.stats.norm.ppf(level)) / self.slope

    def level(self, distance):
        """The inverse of `distance`."""
        quantile = (distance * self.slope - self.lead) / (np.sqrt(2) * self.size)
        return scipy.stats.norm.cdf(quantile)

    def attacked(self, **changes):
        """The attack in 9 search steps of 300 iterations."""
        wanted = tasks(self.images, self.labels, KEYS[:8])
        attack = settings(NAME, **{"iterations": 300, "abort_early": False, **changes})
        return carlini_wagner_l2(attack, self.classify, wanted)


@pytest.mark.parametrize("abort_early", [True, False])
def test_votes_change_nothing_on_a_deterministic_model(abort_early):
    usual = dataclasses.replace(SHORT, abort_early=abort_early)
    voted = dataclasses.replace(usual, votes=20, votes_needed=15)
    ours, theirs = (
        carlini_wagner_l2(attack, trained("deterministic"), TASKS) for attack in (voted, usual)
    )
    for name, values in ours._asdict().items():
        np.testing.assert_array_equal(values, getattr(theirs, name), err_msg=name)


@pytest.mark.parametrize(
    ("votes", "needed", "level"), [(20, 15, 0.5), (1000, 500, 0.5), (1000, 750, 0.75)]
)
def test_the_distance_at_which_the_expected_answer_turns_is_found(votes, needed, level):
    """Of many votes the share that is needed is the level at which an image is found.

    Of 20 it lies below 15/20, for of thousands of iterates the nearest is kept whose votes were
    lucky: 15 of 20 come once in 50 iterates where half of all answers are wrong. So single images
    vary, by as much as noise does: here it is a tenth of the lead.
    """
    problem = TwoClasses(noisy_logits, 0.1)
    result = problem.attacked(votes=votes, votes_needed=needed)
    assert result.success.all()
    error = np.asarray(result.l2) / problem.distance(level) - 1
    assert abs(np.median(error)) < 0.02
    assert np.abs(error).max() < (0.05 if votes < 100 else 0.02)
    # Above the level where luck is out of the question, in all iterates of all images together.
    chance = 0.01 / (8 * 9 * 300)
    impossible = scipy.stats.beta.ppf(chance, needed, votes - needed + 1)
    assert (problem.level(np.asarray(result.l2)) > impossible).all()


def test_one_vote_finds_the_luckiest_iterate_and_20_the_expected_answer():
    """Votes keep what their attack saw under noise of its own, at the rate of the closed form."""
    problem = TwoClasses(noisy_logits, 0.3)
    keys = image_keys(jax.random.key(8), np.arange(8))
    shares = {}
    for votes, needed in ((1, 1), (20, 15)):
        result = problem.attacked(votes=votes, votes_needed=needed)
        counted = np.asarray(reevaluate(problem.classify, result.images, keys, repeats=4000))
        shares[votes] = 1 - share_of(counted, problem.labels)
        expected = problem.level(np.asarray(result.l2))
        deviation = np.sqrt(expected * (1 - expected) / 4000)
        np.testing.assert_array_less(np.abs(shares[votes] - expected), 4.5 * deviation + 1e-3)
    assert shares[1].mean() < 0.05
    assert 0.35 < shares[20].min() <= shares[20].max() < 0.75


def test_noise_that_confuses_the_early_abort_alone_does_not_make_a_model_robust():
    problem = TwoClasses(noisy_scale, 2.0)
    distances = problem.lead / problem.slope
    old = problem.attacked(abort_early=True)
    new = problem.attacked(votes=20, votes_needed=15)
    assert old.iterations.mean() < 0.5 * 2700
    assert np.median(old.l2) > 1.1 * np.median(distances)
    assert (new.iterations == 2700).all()
    np.testing.assert_allclose(new.l2, distances, rtol=0.02)


@pytest.fixture(scope="module")
def voted():
    """A noisy model attacked with votes."""
    attack = dataclasses.replace(SHORT, votes=20, votes_needed=15, abort_early=False)
    return attack, jax.device_get(carlini_wagner_l2(attack, trained("vib"), TASKS))


def test_votes_of_an_image_do_not_depend_on_the_others(voted):
    attack, found = voted
    rows = slice(4, 14)
    some = jax.tree.map(lambda leaf: leaf[rows], TASKS)
    result = carlini_wagner_l2(attack, trained("vib"), some, chunk=5)
    assert_same(result, jax.tree.map(lambda leaf: leaf[rows], found))


def test_what_votes_find_on_a_trained_model_holds_for_about_half_of_its_answers(voted):
    _, found = voted
    votes = np.asarray(reevaluate(trained("vib"), found.images, KEYS, repeats=200))
    share = share_of(votes, TARGETS)[found.success]
    assert found.success.mean() > 0.5
    assert 0.4 < share.mean() < 0.7


def test_votes_compile_with_one_pass_through_what_does_not_depend_on_the_noise():
    """20 votes cost less than a tenth of an iteration, where that is the encoder's."""
    cfg = tiny.vib(K=16, encoder=tiny.mlp(1024))
    classify = classifier(model_definition(cfg), tiny.parameters(cfg), samples=12)

    def operations(**changes):
        attack = traceable(settings(NAME, **changes))
        arguments = attack, classify, TASKS, start(attack, TASKS.image), jnp.arange(N)
        return run_segments.lower(*arguments).compile().cost_analysis()["flops"]

    assert operations(votes=20, votes_needed=15) < 1.1 * operations()


@pytest.mark.parametrize(
    ("votes", "needed", "message"),
    [
        (0, 1, "votes=0: must be at least 1"),
        (20, 0, "votes_needed=0: must be at least 1"),
        (20, 21, "votes_needed=21: must be at most 20, the votes"),
    ],
)
def test_votes_that_are_needed_can_be_had(votes, needed, message):
    with pytest.raises(ConfigError, match=message):
        settings(NAME, votes=votes, votes_needed=needed)


def test_independent_noise_undoes_success_without_confidence():
    """Kept for the luckiest of noisy iterates at kappa = 0; at kappa = 1 for its margin."""
    left = {}
    for confidence in (0.0, 1.0):
        attack = dataclasses.replace(SHORT, confidence=confidence)
        result = carlini_wagner_l2(attack, trained("vib"), tasks(IMAGES, LABELS, KEYS))
        assert result.success.mean() > 0.9
        left[confidence] = accuracy(trained("vib"), result.images)
    assert left[0.0] > 0.5
    assert left[1.0] < 0.2
