"""The L2 attack of Carlini and Wagner (2017): the smallest perturbation that reaches a goal.

Minimises ||x' - x||^2 + c f(x') over x' = (tanh(w0 + m) + 1) / 2 by Adam, and searches for the
smallest c that succeeds. Follows the authors' code (nn_robust_attacks/l2_attack.py) except in two
points: early abort is decided image by image, not on the sum over a batch, and a failed attack
returns the original image, not mid-grey. And in one option: `votes`, for noisy classifiers.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from vibx.attacks.per_image import (
    Adversarial,
    Classify,
    Goal,
    Progress,
    Task,
    part_of,
    perturb,
)
from vibx.attacks.settings import SEGMENTS, CarliniWagnerL2
from vibx.tracing import traceable

NO_PROGRESS = 0.9999  # of the loss a segment before
UNBOUNDED = 1e10  # upper bound of c while no search step has succeeded
REPEATING_STEPS = 10  # so many search steps or more: the last one repeats the upper bound
VOTES = 2**30  # folded into a search step's key: noise of no iteration's loss
SMALLEST_BATCH = 16  # a smaller one takes longer to compile than it saves


class CarliniWagnerResult(NamedTuple):
    """What the attack found for each image.

    Attributes:
        images: The adversarial images in [0, 1]; the original ones where the attack failed.
        success: Whether some iterate reached the goal, as the attack saw it. A noisy classifier
            may have been lucky on that iterate: `scoring.reevaluate` tells. With many votes, it
            was lucky by little.
        l2: Norm of the perturbation in range-1 pixels; infinite where the attack failed.
        constant: c of the search step that found the image; NaN where the attack failed.
        iterations: Of Adam, over all search steps.
        already: Whether the original image was at the goal before the attack, at confidence 0.
    """

    images: Float[Array, "n pixels"]
    success: Bool[Array, "n"]
    l2: Float[Array, "n"]
    constant: Float[Array, "n"]
    iterations: Int[Array, "n"]
    already: Bool[Array, "n"]


class ConstantSearch(NamedTuple):
    """The binary search for c of each image."""

    steps: Int[Array, "*n"]  # that are over
    constant: Float[Array, "*n"]
    lower: Float[Array, "*n"]
    upper: Float[Array, "*n"]

    @classmethod
    def start(cls, n: int, constant: float) -> "ConstantSearch":
        """Nothing is known yet."""
        # With a type: weak ones, which later steps do not have, would be compiled apart.
        constants = jnp.full(n, constant, jnp.float32)
        unbounded = jnp.full(n, UNBOUNDED, jnp.float32)
        return cls(jnp.zeros(n, jnp.int32), constants, jnp.zeros(n), unbounded)

    def narrowed(
        self, succeeded: Bool[Array, "*n"], *, search_steps: Int[Array, ""] | int
    ) -> "ConstantSearch":
        """The search after one more of so many steps.

        c becomes the midpoint, or ten times as large while nothing has succeeded; the last of ten
        steps or more takes the upper bound, which has succeeded if anything has.
        """
        steps = self.steps + 1
        upper = jnp.where(succeeded, jnp.minimum(self.upper, self.constant), self.upper)
        lower = jnp.where(succeeded, self.lower, jnp.maximum(self.lower, self.constant))
        constant = jnp.where(upper < UNBOUNDED, (lower + upper) / 2, 10 * self.constant)
        repeats = (search_steps >= REPEATING_STEPS) & (steps == search_steps - 1)
        return ConstantSearch(steps, jnp.where(repeats, upper, constant), lower, upper)


class Best(NamedTuple):
    """The smallest perturbation so far that reached the goal, over all search steps."""

    image: Float[Array, "*n pixels"]
    squared_norm: Float[Array, "*n"]
    constant: Float[Array, "*n"]


class Descent(NamedTuple):
    """Where the minimisation of a search step stands."""

    iteration: Int[Array, "*n"]
    modifier: Float[Array, "*n pixels"]  # m
    adam: optax.OptState
    succeeded: Bool[Array, "*n"]

    @classmethod
    def start(cls, settings: CarliniWagnerL2, image: Float[Array, "pixels"]) -> "Descent":
        """Before the first iteration on one image: m and Adam start again in each search step."""
        modifier = jnp.zeros_like(image)
        return cls(jnp.int32(0), modifier, adam(settings).init(modifier), jnp.bool_(False))


class State(NamedTuple):
    """Where the attack stands."""

    search: ConstantSearch
    descent: Descent
    best: Best
    iterations: Int[Array, "*n"]  # over all search steps


class Problem(NamedTuple):
    """What a search step on one image minimises."""

    centre: Float[Array, "pixels"]  # w0, the image in tanh space
    origin: Float[Array, "pixels"]  # x0, the image that w0 stands for
    goal: Goal
    constant: Float[Array, ""]
    key: Key[Array, ""]


def adam(settings: CarliniWagnerL2) -> optax.GradientTransformation:
    """The optimiser of one search step."""
    rates = {"b1": settings.b1, "b2": settings.b2, "eps": settings.epsilon}
    return optax.adam(settings.learning_rate, **rates)


def to_tanh_space(image: Float[Array, "pixels"]) -> Float[Array, "pixels"]:
    """The point w with to_box(w) = image; the factor keeps black and white pixels finite."""
    return jnp.arctanh((2 * image - 1) * 0.999999)


def to_box(w: Float[Array, "pixels"]) -> Float[Array, "pixels"]:
    """The image in [0, 1] of a point in tanh space."""
    return (jnp.tanh(w) + 1) / 2


class Trial(NamedTuple):
    """What an iteration tries, before its update, and the classifier's answer to it."""

    image: Float[Array, "pixels"]
    squared_norm: Float[Array, ""]
    logits: Float[Array, "classes"]


def objective(
    modifier: Float[Array, "pixels"],
    settings: CarliniWagnerL2,
    classify: Classify,
    problem: Problem,
    iteration: Int[Array, ""],
) -> tuple[Float[Array, ""], Trial]:
    """||x' - x0||^2 + c max(0, margin + kappa) of one image, with the noise of an iteration."""
    image = to_box(problem.centre + modifier)
    logits = classify(image, jax.random.fold_in(problem.key, iteration))
    squared_norm = jnp.sum((image - problem.origin) ** 2)
    penalty = jnp.maximum(0, problem.goal.margin(logits) + settings.confidence)
    return squared_norm + problem.constant * penalty, Trial(image, squared_norm, logits)


def is_success(
    settings: CarliniWagnerL2,
    classify: Classify,
    problem: Problem,
    trial: Trial,
    iteration: Int[Array, ""],
) -> Bool[Array, ""]:
    """Whether a trial is at the goal: by the answer that its loss was computed from, or by votes.

    Votes have noise of their own, for the loss's draws the iterates towards where it is lucky.
    """
    if settings.votes == 1:
        return problem.goal.reached(trial.logits, settings.confidence)
    key = jax.random.fold_in(jax.random.fold_in(problem.key, VOTES), iteration)
    noise = jax.random.split(key, settings.votes)
    # Only the key is batched, so what does not depend on it is computed once, with the loss.
    logits = jax.vmap(classify, in_axes=(None, 0))(trial.image, noise)
    reached = jax.vmap(problem.goal.reached, in_axes=(0, None))(logits, settings.confidence)
    return jnp.sum(reached) >= settings.votes_needed


def iterate(
    settings: CarliniWagnerL2,
    classify: Classify,
    problem: Problem,
    state: tuple[Descent, Best],
    _: None,
) -> tuple[tuple[Descent, Best], Float[Array, ""]]:
    """One iteration on one image; also the loss before its update."""
    descent, best = state
    value_and_gradient = jax.value_and_grad(objective, has_aux=True)
    (loss, trial), gradient = value_and_gradient(
        descent.modifier, settings, classify, problem, descent.iteration
    )
    update, moments = adam(settings).update(gradient, descent.adam)
    success = is_success(settings, classify, problem, trial, descent.iteration)
    better = success & (trial.squared_norm < best.squared_norm)
    found = Best(trial.image, trial.squared_norm, problem.constant)
    best = jax.tree.map(functools.partial(jnp.where, better), found, best)
    modifier, succeeded = descent.modifier + update, descent.succeeded | success
    descent = Descent(descent.iteration + 1, modifier, moments, succeeded)
    return (descent, best), loss


def run_segment(settings: CarliniWagnerL2, classify: Classify, task: Task, state: State) -> State:
    """A segment of a search step on one image; if it was the last, the next step's start."""
    search, descent, best, iterations = state
    centre = to_tanh_space(task.image)
    key = jax.random.fold_in(task.key, 1 + search.steps)
    problem = Problem(centre, to_box(centre), task.goal, search.constant, key)
    step = functools.partial(iterate, settings, classify, problem)
    length = settings.iterations // SEGMENTS
    (descent, best), losses = jax.lax.scan(step, (descent, best), length=length)
    # The next iteration's loss, with its noise: an image that stops here does not run it.
    loss, _ = objective(descent.modifier, settings, classify, problem, descent.iteration)
    stalled = ~(loss <= NO_PROGRESS * losses[0])  # not a number: stop too
    over = (descent.iteration == settings.iterations) | (settings.abort_early & stalled)
    after = (
        search.narrowed(descent.succeeded, search_steps=settings.search_steps),
        Descent.start(settings, task.image),
    )
    search, descent = jax.tree.map(functools.partial(jnp.where, over), after, (search, descent))
    return State(search, descent, best, iterations + length)


@jax.jit
def run_segments(
    settings: CarliniWagnerL2,
    classify: Classify,
    tasks: Task,
    states: State,
    rows: Int[Array, "m"],
) -> State:
    """All states after `run_segment` of the given rows; one past the end changes none."""
    tasks, chosen = jax.tree.map(
        lambda leaf: leaf[jnp.minimum(rows, len(leaf) - 1)], (tasks, states)
    )
    changed = jax.vmap(functools.partial(run_segment, settings, classify))(tasks, chosen)
    return jax.tree.map(lambda leaf, new: leaf.at[rows].set(new, mode="drop"), states, changed)


def rows_to_run(active: Bool[np.ndarray, "n"], *, compact: bool) -> Int[np.ndarray, "m"]:
    """Rows of the active images, padded with n to n, n/2, n/4, ... rows: each size is compiled.

    Not compact, images that are through stay in the batch, and what they do is dropped.
    """
    size = n = len(active)
    rows = np.flatnonzero(active) if compact else np.where(active, np.arange(n), n)
    while (half := -(-size // 2)) >= max(len(rows), SMALLEST_BATCH):
        size = half
    return np.pad(rows, (0, size - len(rows)), constant_values=n)


@jax.jit
def at_goal(
    classify: Classify, images: Float[Array, "n pixels"], goal: Goal, keys: Key[Array, "n"]
) -> Bool[Array, "n"]:
    """Whether each image is at its goal; its noise is that of no iteration."""

    def one(image: Array, goal: Goal, key: Array) -> Bool[Array, ""]:
        return goal.reached(classify(image, jax.random.fold_in(key, 0)))

    return jax.vmap(one)(images, goal, keys)


@jax.jit
def start(settings: CarliniWagnerL2, images: Float[Array, "n pixels"]) -> State:
    """The attack before its first iteration."""
    n = len(images)
    return State(
        search=ConstantSearch.start(n, settings.initial_constant),
        descent=jax.vmap(functools.partial(Descent.start, settings))(images),
        best=Best(images, jnp.full(n, jnp.inf), jnp.full(n, jnp.nan)),
        iterations=jnp.zeros(n, jnp.int32),
    )


def attack_chunk(
    settings: CarliniWagnerL2,
    classify: Classify,
    tasks: Task,
    *,
    on_progress: Progress,
    compact: bool,
) -> CarliniWagnerResult:
    """`carlini_wagner_l2` of images that fit into memory together.

    Each image goes on to its next search step as soon as its last one is over.
    """
    steps, search_steps = np.zeros(len(tasks.image), np.int32), int(settings.search_steps)
    states = start(settings, tasks.image)
    while (active := steps < search_steps).any():
        rows = rows_to_run(active, compact=compact)
        states = run_segments(settings, classify, tasks, states, rows)
        steps = np.asarray(states.search.steps)
        begun = states.descent.iteration / settings.iterations  # the share of the current step
        on_progress(float(np.mean(steps + begun)) / search_steps)
    best = states.best
    success = jnp.isfinite(best.squared_norm)
    return CarliniWagnerResult(
        images=best.image,
        success=success,
        l2=jnp.where(success, jnp.linalg.norm(best.image - tasks.image, axis=1), jnp.inf),
        constant=best.constant,
        iterations=states.iterations,
        already=at_goal(classify, *tasks),
    )


def carlini_wagner_l2(
    settings: CarliniWagnerL2,
    classify: Classify,
    tasks: Task,
    *,
    on_progress: Progress = lambda fraction: None,
    chunk: int = 1024,
    compact: bool = True,
) -> CarliniWagnerResult:
    """Find the smallest L2 perturbation of each image that reaches its goal.

    The classifier draws new noise at every iteration, from the image's key, the search step and
    the iteration, so a result depends neither on the other images nor on `chunk` and `compact`
    (but for rounding). A classifier of other weights and equal shapes compiles nothing new.

    Args:
        settings: Of the attack.
        classify: The classifier.
        tasks: Images, goals and keys.
        on_progress: Told the fraction of the work that is done; an early abort counts as done.
        chunk: Images attacked at a time; bounds memory.
        compact: Drop images that are through from the batch. False wastes time, for a test.

    Returns:
        What was found for each image.
    """
    settings = traceable(settings)
    n = len(tasks.image)
    results = []
    for first in range(0, n, chunk):
        part = jax.tree.map(lambda leaf, first=first: leaf[first : first + chunk], tasks)
        progress = part_of(on_progress, first / n, len(part.image) / n)
        results.append(
            attack_chunk(settings, classify, part, on_progress=progress, compact=compact)
        )
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *results)


@perturb.register(CarliniWagnerL2)
def _(
    settings: CarliniWagnerL2, classify: Classify, tasks: Task, *, on_progress: Progress
) -> Adversarial:
    result = carlini_wagner_l2(settings, classify, tasks, on_progress=on_progress)
    told = {name: getattr(result, name) for name in ("success", "constant", "iterations")}
    return Adversarial(result.images, told)
