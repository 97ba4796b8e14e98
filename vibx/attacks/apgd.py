"""Auto-PGD: projected descent with momentum that halves its own step size (Croce and Hein 2020).

Algorithm 1 of "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", on the margin (see `gradient` on why not the cross-entropy). It compares
points: has the last step gained, which point is the best so far, which start ended best? With a
noisy classifier the luckiest point would win. So there are three independent noises, and a
fourth, `scoring.reevaluate`'s, in what is reported:

- each gradient is averaged over answers with noise that no other step has;
- the points of one start are compared by the mean margin of answers with the same noise for all;
- the starts' best points are compared by the same, with noise that none of them has met.

Or the attack knows the noise: then the classifier with that noise is a deterministic one, and
nothing is averaged.

Away from a class, the margin leads to the class that is nearest at each point, and ends in poor
minima where another is better. So of an untargeted attack's starts only the first follows it, and
each of the others the margin to one class, the likeliest first, as the authors' targeted version
does. All are compared by the untargeted margin. After going back to the best point there is no
momentum.
"""

import functools
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vibx.attacks.descent import project, random_start, steepest
from vibx.attacks.per_image import Adversarial, Classify, Goal, Progress, Task, over_images, perturb
from vibx.attacks.settings import APGD
from vibx.tracing import traceable

Tree = TypeVar("Tree")

FIRST_STEP = 2.0  # in budgets
INERTIA = 0.75  # alpha: the share of a step that is not momentum
ENOUGH = 0.75  # rho: the share of steps since the last checkpoint that have to gain
FIRST_PERIOD, SHORTER, SHORTEST = 0.22, 0.03, 0.06  # between checkpoints, as shares of all steps


class Point(NamedTuple):
    """A point, the gradient of its margin, and its margin under the noise that compares points."""

    image: Float[Array, "pixels"]
    slope: Float[Array, "pixels"]
    margin: Float[Array, ""]


class Checkpoints(NamedTuple):
    """When the step size is next looked at, the same for all images."""

    period: Int[Array, ""]
    passed: Int[Array, ""]  # steps since the last one

    @classmethod
    def start(cls, steps: Int[Array, ""] | int) -> "Checkpoints":
        """The first one lies a fifth of the way ahead."""
        return cls(share_of_steps(FIRST_PERIOD, steps), jnp.int32(0))

    def after_step(self, steps: Int[Array, ""] | int) -> tuple["Checkpoints", Bool[Array, ""]]:
        """One step later, and whether that is a checkpoint. They become denser."""
        passed = self.passed + 1
        due = passed == self.period
        shorter = self.period - share_of_steps(SHORTER, steps)
        period = jnp.maximum(shorter, share_of_steps(SHORTEST, steps))
        return Checkpoints(jnp.where(due, period, self.period), jnp.where(due, 0, passed)), due


class Descent(NamedTuple):
    """Where the descent from one start stands."""

    point: Point
    previous: Float[Array, "pixels"]
    best: Point
    step_size: Float[Array, ""] | float
    gains: Int[Array, ""]  # steps since the last checkpoint that lowered the margin
    halved: Bool[Array, ""]  # the step size, at the last checkpoint
    best_then: Float[Array, ""]  # the best margin at the last checkpoint
    checkpoints: Checkpoints


class Found(NamedTuple):
    """What the attack found of an image."""

    image: Float[Array, "pixels"]
    margin: Float[Array, ""]  # under the noise that compares starts


def share_of_steps(share: float, steps: Int[Array, ""] | int) -> Int[Array, ""]:
    """A share of all steps in whole ones, at least 1."""
    return jnp.maximum(jnp.int32(share * steps), 1)


def answers(
    classify: Classify, image: Float[Array, "pixels"], noise: Key[Array, "samples"]
) -> Float[Array, "samples classes"]:
    """The classifier's answers to one image with given noise."""
    return jax.vmap(classify, (None, 0))(image, noise)


def aim_of_start(goal: Goal, logits: Float[Array, "classes"], i: Int[Array, ""] | int) -> Goal:
    """What start i follows: a targeted goal, the untargeted one, or one of the other classes.

    Those are in the order of the image's logits, and after the last it begins again.
    """
    own = jnp.arange(logits.size) == goal.label
    others = jnp.argsort(jnp.where(own, -jnp.inf, logits), descending=True)  # its own class last
    turn = i % logits.size
    return choose(goal.targeted, goal, Goal(others[turn - 1], jnp.asarray(turn > 0)))


def point_at(
    classify: Classify,
    goal: Goal,
    image: Float[Array, "pixels"],
    *,
    averaged: Key[Array, "samples"],
    comparing: Key[Array, "samples"],
) -> Point:
    """A point: its gradient with some noise, its margin with other noise."""

    def margins(image: Float[Array, "pixels"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        # One vmap for both, as what does not depend on the noise is then computed once.
        noise = jnp.concatenate([averaged, comparing])
        each = jax.vmap(goal.margin)(answers(classify, image, noise))
        return jnp.mean(each[: len(averaged)]), jnp.mean(each[len(averaged) :])

    slope, margin = jax.grad(margins, has_aux=True)(image)
    return Point(image, slope, margin)


def choose(condition: Bool[Array, ""], one: Tree, other: Tree) -> Tree:
    """One or the other, as a whole."""
    return jax.tree.map(functools.partial(jnp.where, condition), one, other)


def descend(
    settings: APGD,
    classify: Classify,
    task: Task,
    *,
    start: Float[Array, "pixels"],
    key: Key[Array, ""],
    samples: int,
) -> Float[Array, "pixels"]:
    """The best point on the way from one start."""
    norm, epsilon = settings.norm, jnp.asarray(settings.epsilon)
    gradient_key, comparing_key = jax.random.split(key)
    comparing = jax.random.split(comparing_key, samples)

    def at(image: Float[Array, "pixels"], step: Int[Array, ""] | int) -> Point:
        averaged = jax.random.split(jax.random.fold_in(gradient_key, step), samples)
        return point_at(classify, task.goal, image, averaged=averaged, comparing=comparing)

    def within(image: Float[Array, "pixels"]) -> Float[Array, "pixels"]:
        return project(image, task.image, norm=norm, epsilon=epsilon)

    def step(i: Int[Array, ""], descent: Descent) -> Descent:
        image, slope, margin = descent.point
        ahead = within(image - descent.step_size * steepest(slope, norm=norm))
        momentum = image - descent.previous
        moved = within(image + INERTIA * (ahead - image) + (1 - INERTIA) * momentum)
        point = at(jnp.where(i == 0, ahead, moved), i + 1)
        best = choose(point.margin < descent.best.margin, point, descent.best)
        checkpoints, due = descent.checkpoints.after_step(settings.steps)
        gains = descent.gains + (point.margin < margin)
        after = descent._replace(
            point=point, previous=image, best=best, gains=gains, checkpoints=checkpoints
        )
        return choose(due, at_checkpoint(after, descent.checkpoints.period), after)

    first = at(start, 0)
    descent = Descent(
        point=first,
        previous=start,
        best=first,
        step_size=FIRST_STEP * epsilon,
        gains=jnp.int32(0),
        halved=jnp.bool_(False),
        best_then=first.margin,
        checkpoints=Checkpoints.start(settings.steps),
    )
    return jax.lax.fori_loop(0, settings.steps, step, descent).best.image


def at_checkpoint(descent: Descent, period: Int[Array, ""]) -> Descent:
    """Halve the step size and go back to the best point if too few of the last steps gained.

    Or if neither the step size nor the best margin is another than at the checkpoint before.
    """
    too_few = descent.gains < ENOUGH * period
    stuck = ~descent.halved & (descent.best.margin >= descent.best_then)
    halve = too_few | stuck
    again = descent._replace(
        point=descent.best, previous=descent.best.image, step_size=descent.step_size / 2
    )
    return choose(halve, again, descent)._replace(
        gains=jnp.int32(0), halved=halve, best_then=descent.best.margin
    )


def best_of_starts(settings: APGD, classify: Classify, task: Task, *, samples: int) -> Found:
    """The best of each start's best points."""
    norm, epsilon = settings.norm, jnp.asarray(settings.epsilon)
    starts_key, choice_key = jax.random.split(task.key)
    choosing = jax.random.split(choice_key, samples)
    logits = jnp.mean(answers(classify, task.image, choosing), axis=0)

    def from_start(i: Int[Array, ""] | int, found: Found) -> Found:
        start_key, key = jax.random.split(jax.random.fold_in(starts_key, i))
        start = random_start(start_key, task.image, norm=norm, epsilon=epsilon)
        aimed = task._replace(goal=aim_of_start(task.goal, logits, i))
        image = descend(settings, classify, aimed, start=start, key=key, samples=samples)
        margin = jnp.mean(jax.vmap(task.goal.margin)(answers(classify, image, choosing)))
        return choose(margin < found.margin, Found(image, margin), found)

    nothing = Found(task.image, jnp.array(jnp.inf))
    return jax.lax.fori_loop(0, settings.restarts, from_start, nothing)


@jax.jit
def apgd(settings: APGD, classify: Classify, tasks: Task) -> Adversarial:
    """Each image attacked within the budget, from several starts.

    Args:
        settings: Traceable.
        classify: The classifier.
        tasks: Images, goals and keys.

    Returns:
        Images in [0, 1] and within the budget; `margin`, their mean margin under the noise that
        compared the starts; and, from an attack that knows the noise, `success`, under that noise.
    """

    def one(task: Task) -> Adversarial:
        noise_key, key = jax.random.split(task.key)
        task = task._replace(key=key)
        if settings.noise_samples is not None:
            samples = settings.noise_samples
            found = best_of_starts(settings, classify, task, samples=samples)
            return Adversarial(found.image, {"margin": found.margin})

        def known(image: Float[Array, "pixels"], _: Key[Array, ""]) -> Float[Array, "classes"]:
            return classify(image, noise_key)

        found = best_of_starts(settings, known, task, samples=1)
        success = task.goal.reached(classify(found.image, noise_key))
        return Adversarial(found.image, {"margin": found.margin, "success": success})

    return over_images(one, tasks, chunk=settings.chunk)


@perturb.register(APGD)
def _(settings: APGD, classify: Classify, tasks: Task, *, on_progress: Progress) -> Adversarial:
    return apgd(traceable(settings), classify, tasks)
