"""Robustness, or gradients that mislead? What must hold before an attack's numbers are believed.

After Carlini et al. 2019, "On Evaluating Adversarial Robustness", and Athalye et al. 2018,
"Obfuscated Gradients Give a False Sense of Security", with what a classifier's noise adds.
Success is always the mean share of answers at the goal under noise that is independent of the
attack's, unless it is called seen. The white box is `carlini_wagner_l2` at kappa = 1.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vibx import attacks
from vibx.attacks.carlini_wagner import CarliniWagnerResult, carlini_wagner_l2
from vibx.attacks.descent import attack_within_budget
from vibx.attacks.gradient import margin_gradients
from vibx.attacks.per_image import Classify, Progress, Task, part_of
from vibx.attacks.scoring import reevaluate, share_of
from vibx.attacks.settings import PGD, SPSA, CarliniWagnerL2, Noise, WithinBudget
from vibx.robustness.config import Audit
from vibx.tracing import traceable

MORE, MOST = 10, 1000 / 12  # times the usual samples: 120 and 1,000 where those are 12
BUDGETS = (25, 50, 100, 200, 400, 800)  # percent of the white box's median norm
# Per root of a pixel, where the white box found nothing: 7 for 28 x 28. It hides most digits, so
# an attack that gets along without gradients has every chance.
BUDGET_IF_NONE = 0.25
WHITE_BOX_WORK = 0.7  # share of the work, roughly
SMALLER = 0.8  # of the white box's norms, where weaker attacks have their try
PATH = 10  # length of all steps in budgets: after 2.5, some starts are still on their way
CHUNK = 128  # images that Carlini-Wagner attacks at a time; bounds memory with 1,000 samples
BEFORE, CHOICE = 2**30, 2**30 + 1  # folded into keys: noise that chooses, and scores nothing
ROUNDING = 1e-9  # of shares

Images = Float[Array, "n pixels"]

attacks.import_modules()


class NothingToAttackError(ValueError):
    """No image is classified right before the attack and has not reached its target."""


class Check(NamedTuple):
    """One thing that must hold, in plain values, without NaN.

    Attributes:
        name: Of `CRITERIA`.
        expected: What must hold.
        measured: What was found.
        passed: Whether it held.
        meaning: What it would mean if it did not.
        values: The numbers behind `measured`: shares in [0, 1], norms in range-1 pixels, None
            where undefined; from `audit` also how many images were attacked and left out.
    """

    name: str
    expected: str
    measured: str
    passed: bool
    meaning: str
    values: dict[str, float | None]


class Criterion(NamedTuple):
    """What `Check` is made of, as a pure function of its values; NaN, undefined, never holds."""

    expected: str
    measured: str  # a format of the values
    holds: Callable[[dict[str, float]], bool]
    meaning: str


def at_most(value: float, limit: float) -> bool:
    """Whether a share or a difference of shares is within its limit."""
    return value <= limit + ROUNDING


def rises(shares: list[float], tolerance: float) -> bool:
    """Whether no share is below the one before it by more than the tolerance."""
    return all(at_most(a - b, tolerance) for a, b in itertools.pairwise(shares))


def no_smaller_norm(meaning: str) -> Criterion:
    """An attack that should be weaker: smaller norms than the white box's are not enough for it.

    PGD follows the model's own gradients to the same norms.
    """
    return Criterion(
        f"within {SMALLER:.0%} of each image's white-box norm at most 50% success, and at most 5 "
        "points more than PGD",
        "{success:.1%}; PGD {pgd:.1%}",
        lambda v: at_most(v["success"], 0.5) and at_most(v["success"] - v["pgd"], 0.05),
        meaning,
    )


CRITERIA = {
    "gradient averaging": Criterion(
        "success changes by at most 5 points with the samples inside the attack",
        "{success:.1%}, {success_more:.1%}, {success_most:.1%} and median norms {norm:.3f}, "
        "{norm_more:.3f}, {norm_most:.3f}, also with {samples_more} and {samples_most} samples",
        lambda v: all(
            at_most(abs(v[f"success_{n}"] - v["success"]), 0.05) for n in ("more", "most")
        ),
        "Otherwise noise hides the gradient from an attack that averages less of it.",
    ),
    "independent noise": Criterion(
        "success falls by at most 1 point as kappa rises, and is at least 95% at kappa 1",
        "{kappa_0:.1%}, {kappa_1:.1%}, {kappa_5:.1%} at kappa 0, 1, 5; seen at 0 {seen_0:.1%}",
        lambda v: (
            rises([v["kappa_0"], v["kappa_1"], v["kappa_5"]], 0.01) and at_most(0.95, v["kappa_1"])
        ),
        "Otherwise the white box is fooled by lucky noise, as it may be at kappa 0, where little "
        "of what is seen on a noisy model holds: that is a finding, not a failure.",
    ),
    "unbounded attack": Criterion(
        "100% of successes seen at kappa 1 and 5",
        "{seen_1:.1%}, {seen_5:.1%}",
        lambda v: v["seen_1"] == v["seen_5"] == 1,
        "Otherwise the attack is stuck: without a bound there are images of every class.",
    ),
    "iterations": Criterion(
        "twice the iterations change the median norm by less than 2%",
        "{norm:.3f}, then {norm_twice:.3f}",
        lambda v: abs(v["norm_twice"] - v["norm"]) < 0.02 * v["norm"],
        "Otherwise the attack had not finished.",
    ),
    "norm budget": Criterion(
        "PGD leaves fewer answers off the goal as its budget rises (tolerance 2 points), "
        "at last 1% at most",
        ", ".join(f"{{left_{budget}:.1%}}" for budget in BUDGETS)
        + " at "
        + ", ".join(f"{budget / 100:g}" for budget in BUDGETS)
        + " times {norm:.3f}",
        lambda v: (
            rises([-v[f"left_{budget}"] for budget in BUDGETS], 0.02)
            and at_most(v[f"left_{BUDGETS[-1]}"], 0.01)
        ),
        "Otherwise gradients do not lead to the goal even where the budget allows everything.",
    ),
    "random restarts": Criterion(
        "each image's best start of PGD gains at most 2 points, or one image, over the first",
        "{first:.1%}, {best:.1%} from the best of {starts}; tolerance {tolerance:.1%}",
        lambda v: at_most(v["best"] - v["first"], v["tolerance"]),
        "Otherwise there are poor local minima, and one start says little.",
    ),
    "transfer": no_smaller_norm(
        "Otherwise another model's gradients are better than the model's own, which mislead."
    ),
    "black box": no_smaller_norm(
        "Otherwise values alone lead farther than gradients, which mislead."
    ),
    "mean mode": no_smaller_norm("Otherwise the noise hides a gradient that the mean has."),
    "gradients": Criterion(
        "no image's gradient is exactly zero or not finite",
        "{zero:.1%} zero, {not_finite:.1%} not finite; {zero_pixels:.1%} of all pixels zero",
        lambda v: v["zero"] == v["not_finite"] == 0,
        "Otherwise an attack has no direction to follow.",
    ),
    "random noise": Criterion(
        "noise of each image's white-box norm turns at most 5% of the answers wrong",
        "right {without:.1%} without, {with_noise:.1%} with noise",
        lambda v: at_most(v["without"] - v["with_noise"], 0.05),
        "Otherwise the white box needs norms at which no direction has to be searched.",
    ),
}


def judged(name: str, **values: float) -> Check:
    """Values judged by the criterion of that name."""
    criterion = CRITERIA[name]
    return Check(
        name,
        criterion.expected,
        criterion.measured.format_map(values),
        bool(criterion.holds(values)),
        criterion.meaning,
        {key: float(value) if math.isfinite(value) else None for key, value in values.items()},
    )


def norms_found(result: CarliniWagnerResult) -> Float[np.ndarray, "n"]:
    """Norms of the perturbations, NaN where the attack failed."""
    return np.where(np.isfinite(result.l2) & (result.l2 > 0), result.l2, np.nan)


def median(norms: Float[np.ndarray, "n"]) -> float:
    """Of those that are there, or NaN."""
    return float(np.nanmedian(norms)) if np.isfinite(norms).any() else math.nan


@dataclass(frozen=True)
class Subject:
    """The audited classifier, what shall become of which images, and their true classes.

    Each re-evaluation under independent noise takes `repeats` answers to each image.
    """

    classify: Classify
    tasks: Task
    labels: Int[Array, "n"]
    repeats: int

    def rekeyed(self, number: int) -> "Subject":
        """The same with other noise."""
        keys = jax.vmap(jax.random.fold_in, (0, None))(self.tasks.key, number)
        return dataclasses.replace(self, tasks=self.tasks._replace(key=keys))

    def perturbed(
        self,
        attack: WithinBudget,
        budgets: Float[np.ndarray, "#n"],
        *,
        classify: Classify | None = None,
    ) -> Images:
        """What an attack finds within each image's budget, by default on the audited classifier."""
        epsilons = jnp.broadcast_to(jnp.float32(budgets), len(self.labels))
        classify = classify or self.classify
        return attack_within_budget(traceable(attack), classify, self.tasks, epsilons)

    def answers(self, images: Images, classes: Int[Array, "n"]) -> Float[np.ndarray, "n"]:
        """Each image's share of answers that are its class, under independent noise."""
        votes = reevaluate(self.classify, images, self.tasks.key, repeats=self.repeats)
        return share_of(np.asarray(votes), np.asarray(classes))

    def at_goal(self, images: Images) -> Float[np.ndarray, "n"]:
        """Each image's share of answers at the goal, under independent noise."""
        goal = self.tasks.goal
        share = self.answers(images, goal.label)
        return np.where(goal.targeted, share, 1 - share)

    def success(self, images: Images) -> float:
        """The mean of `at_goal`."""
        return float(self.at_goal(images).mean())


def white_box(settings: Audit, *, kappa: float, times: int) -> CarliniWagnerL2:
    """The attack in question, its authors' but for the iterations: so many times the usual ones."""
    return CarliniWagnerL2(
        name="carlini_wagner_l2",
        search_steps=settings.search_steps,
        iterations=times * settings.iterations,
        learning_rate=1e-2,
        b1=0.9,
        b2=0.999,
        epsilon=1e-8,
        initial_constant=1e-3,
        confidence=kappa,
        abort_early=True,
    )


def white_box_checks(
    settings: Audit, subject: Subject, averaging: dict[int, Classify], on_progress: Progress
) -> tuple[Float[np.ndarray, "n"], list[Check]]:
    """The white box and its variants: other kappas, more samples, twice the iterations.

    Returns:
        The white box's norms, NaN where it failed, and the checks.
    """
    usual = subject.classify
    variants = [
        *((usual, kappa, 1) for kappa in (1.0, 0.0, 5.0)),
        *((classify, 1.0, 1) for classify in averaging.values()),
        (usual, 1.0, 2),
    ]
    part = 1 / len(variants)
    results = []
    for i, (classify, kappa, times) in enumerate(variants):
        attack = white_box(settings, kappa=kappa, times=times)
        progress = part_of(on_progress, i * part, part)
        found = carlini_wagner_l2(
            attack, classify, subject.tasks, on_progress=progress, chunk=CHUNK
        )
        results.append(jax.device_get(found))
    seen = [float(np.mean(result.success)) for result in results]
    success = [subject.success(result.images) for result in results]
    norms = [median(norms_found(result)) for result in results]
    averaged = {
        name + suffix: values[i]
        for name, values in {"success": success, "norm": norms}.items()
        for suffix, i in {"": 0, "_more": 3, "_most": 4}.items()
    }
    more, most = averaging
    kappas = {"kappa_0": success[1], "kappa_1": success[0], "kappa_5": success[2]}
    return norms_found(results[0]), [
        judged("gradient averaging", samples_more=more, samples_most=most, **averaged),
        judged("independent noise", seen_0=seen[1], **kappas),
        judged("unbounded attack", seen_1=seen[0], seen_5=seen[2]),
        judged("iterations", norm=norms[0], norm_twice=norms[5]),
    ]


def within_budget(settings: Audit) -> tuple[PGD, SPSA, Noise]:
    """PGD, the black box and the baseline; each image's own budget takes the place of epsilon."""
    l2: dict[str, Any] = {"norm": "l2", "epsilon": 1.0}
    pgd, spsa = (
        {**l2, "steps": steps, "step_size": PATH / steps}
        for steps in (settings.pgd_steps, settings.spsa_steps)
    )
    return (
        PGD(name="pgd", noise_samples=1, **pgd),
        SPSA(name="spsa", directions=settings.spsa_directions, delta=0.1, **spsa),
        Noise(name="noise", **l2),
    )


def budget_checks(
    settings: Audit,
    subject: Subject,
    norms: Float[np.ndarray, "n"],
    mean: Classify,
    transfer_from: Classify | None,
) -> Iterator[Check]:
    """Other attacks within the norms that the white box found."""
    pgd, spsa, noise = within_budget(settings)
    images = subject.tasks.image
    n, pixels = images.shape
    typical = np.nan_to_num(median(norms), nan=BUDGET_IF_NONE * math.sqrt(pixels))
    budgets = np.nan_to_num(norms, nan=typical)
    left = {
        f"left_{b}": 1 - subject.success(subject.perturbed(pgd, b / 100 * typical)) for b in BUDGETS
    }
    yield judged("norm budget", norm=typical, **left)

    others = [subject.rekeyed(i) for i in range(settings.restarts)]
    starts = [other.perturbed(pgd, typical) for other in others]
    # One noise chooses and another scores, or the best start would be the one with lucky noise.
    chosen = np.argmax([subject.rekeyed(CHOICE).at_goal(images) for images in starts], axis=0)
    scores = np.stack([subject.at_goal(images) for images in starts])
    yield judged(
        "random restarts",
        starts=len(starts),
        first=scores[0].mean(),
        best=scores[chosen, np.arange(n)].mean(),
        tolerance=max(0.02, 1 / n),  # of few images, one that flips is no finding
    )

    smaller = SMALLER * budgets
    own = subject.success(subject.perturbed(pgd, smaller))
    weaker = {"black box": (spsa, None), "mean mode": (pgd, mean)}
    if transfer_from is not None:
        weaker["transfer"] = (pgd, transfer_from)
    for name, (attack, classify) in weaker.items():
        success = subject.success(subject.perturbed(attack, smaller, classify=classify))
        yield judged(name, success=success, pgd=own)

    gradients = np.asarray(margin_gradients(subject.classify, subject.tasks))
    yield judged(
        "gradients",
        zero=float(np.mean(~gradients.any(axis=1))),
        not_finite=float(np.mean(~np.isfinite(gradients).all(axis=1))),
        zero_pixels=float(np.mean(gradients == 0)),
    )
    noisy = subject.perturbed(noise, budgets)
    without, with_noise = (subject.answers(x, subject.labels).mean() for x in (images, noisy))
    yield judged("random noise", without=without, with_noise=with_noise)


def audit(
    settings: Audit,
    classify_with: Callable[[int | None], Classify],
    tasks: Task,
    labels: Int[Array, "n"],
    *,
    samples: int,
    repeats: int,
    transfer_from: Classify | None,
    on_progress: Progress = lambda fraction: None,
) -> list[Check]:
    """Whether an attack's numbers on a classifier are to be trusted.

    Images are left out that most answers get wrong before the attack, or whose label is already
    the target; every check says how many.

    Args:
        settings: How much work.
        classify_with: The classifier with so many samples of its noise averaged, or with None in
            its mean mode. A deterministic one ignores the number.
        tasks: Images, goals and keys, which fix the result.
        labels: The true classes.
        samples: The usual ones, with which every answer is scored.
        repeats: Answers to each image under independent noise.
        transfer_from: A deterministic classifier whose adversarial images are tried on this one;
            without it there is no check "transfer".
        on_progress: Told the fraction of the work that is done.

    Returns:
        The checks of `CRITERIA`.

    Raises:
        NothingToAttackError: No image is left.
    """
    labels = jnp.asarray(labels)
    whole = Subject(classify_with(samples), tasks, labels, repeats)
    right = whole.rekeyed(BEFORE).answers(tasks.image, labels) >= 0.5
    there = tasks.goal.targeted & (tasks.goal.label == labels)
    rows = np.flatnonzero(right & ~np.asarray(there))
    if not len(rows):
        raise NothingToAttackError(
            f"none of {len(labels)} images is right before the attack and not yet at its target"
        )
    kept = jax.tree.map(lambda leaf: leaf[rows], tasks)
    subject = dataclasses.replace(whole, tasks=kept, labels=labels[rows])
    averaging = {more: classify_with(more) for more in (MORE * samples, round(MOST * samples))}
    white_box_work = part_of(on_progress, 0, WHITE_BOX_WORK)
    norms, checks = white_box_checks(settings, subject, averaging, white_box_work)
    left = len(CRITERIA) - len(checks) - (transfer_from is None)
    rest = part_of(on_progress, WHITE_BOX_WORK, 1 - WHITE_BOX_WORK)
    others = budget_checks(settings, subject, norms, classify_with(None), transfer_from)
    for number, found in enumerate(others, 1):
        checks.append(found)
        rest(number / left)
    counts = {"images": len(rows), "left_out": len(labels) - len(rows)}
    return [found._replace(values={**found.values, **counts}) for found in checks]
