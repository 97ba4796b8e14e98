"""The settings of every attack: its keys in conf/attack/attack/ and their ranges. Imports no jax.

A change of a traced number compiles nothing.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from vibx.choices import apart, choice, compiled, one_of, require, traced

NORMS = ("l2", "linf")
SEGMENTS = 10  # of a search step of Carlini and Wagner: early abort is decided after each


def require_positive(settings: object, *keys: str) -> None:
    """Refuse numbers that are not finite or not above zero."""
    for key in keys:
        value = getattr(settings, key)
        require(0 < value < math.inf, key, value, "finite and > 0")


def require_at_least_one(settings: object, *keys: str) -> None:
    """Refuse counts below one."""
    for key in keys:
        require(getattr(settings, key) >= 1, key, getattr(settings, key), "at least 1")


def require_segments(iterations: int) -> None:
    """Refuse iterations that do not divide into equal segments."""
    whole = iterations >= 1 and iterations % SEGMENTS == 0
    require(whole, "iterations", iterations, f"a multiple of {SEGMENTS}")


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What every attack has: the name of its yaml."""

    name: str = apart()

    @property
    def votes_decide(self) -> bool:
        """Whether several answers decide a success: then its exact probability is reported."""
        return False


@choice("attack", "carlini_wagner_l2")
@dataclass(frozen=True, kw_only=True)
class CarliniWagnerL2(Attack):
    """The smallest L2 perturbation that reaches the goal: Carlini and Wagner (2017).

    Attributes:
        search_steps: Steps of the binary search for the constant c.
        iterations: Of Adam in each search step, a multiple of 10. The authors' default is 10,000;
            1,000 change the median norm on a deterministic model by 0.1%.
        learning_rate: Adam's, in tanh space.
        b1: Adam's decay of the mean gradient.
        b2: Adam's decay of the mean squared gradient.
        epsilon: Adam's, added to the root of the mean squared gradient.
        initial_constant: c of the first search step.
        confidence: kappa, the lead in logits that counts as a success.
        abort_early: End an image's search step when its loss has stopped falling. Of a noisy model
            that compares noise, and ends steps long before they are through.
        votes: Answers to each iterate that decide whether it is a success, each with noise of its
            own. With 1, the authors', it is the answer that the loss was computed from: of a noisy
            model the luckiest of thousands.
        votes_needed: So many of them at the goal are a success.
    """

    search_steps: int = traced()
    iterations: int
    learning_rate: float = traced()
    b1: float = traced()
    b2: float = traced()
    epsilon: float = traced()
    initial_constant: float = traced()
    confidence: float = traced()
    abort_early: bool = traced()
    votes: int = compiled(later=True, default=1)
    votes_needed: int = traced(later=True, default=1)

    def __post_init__(self) -> None:
        require_at_least_one(self, "search_steps")
        require_segments(self.iterations)
        require_positive(self, "learning_rate", "epsilon", "initial_constant")
        for key in ("b1", "b2"):
            require(0 <= getattr(self, key) < 1, key, getattr(self, key), "in [0, 1)")
        require(0 <= self.confidence < math.inf, "confidence", self.confidence, "finite and >= 0")
        require_at_least_one(self, "votes", "votes_needed")
        most = f"at most {self.votes}, the votes"
        require(self.votes_needed <= self.votes, "votes_needed", self.votes_needed, most)

    @property
    def votes_decide(self) -> bool:
        """Unless there is one, which is the loss's own."""
        return self.votes > 1


@dataclass(frozen=True, kw_only=True)
class WithinBudget(Attack):
    """An attack that keeps a perturbation's norm within `epsilon`, in pixels of range 1."""

    chunk: ClassVar = 256  # images attacked at a time; bounds memory

    norm: str
    epsilon: float = traced()

    def __post_init__(self) -> None:
        require(self.norm in NORMS, "norm", self.norm, one_of(NORMS))
        require_positive(self, "epsilon")


@choice("attack", "noise")
@dataclass(frozen=True, kw_only=True)
class Noise(WithinBudget):
    """Random noise of norm epsilon, the baseline: Gaussian for L2, random signs for Linf."""


@choice("attack", "fgsm")
@dataclass(frozen=True, kw_only=True)
class FGSM(WithinBudget):
    """One step of size epsilon along the gradient or, for Linf, its sign: Goodfellow et al. (2015).

    Each gradient is the mean over `noise_samples` keys.
    """

    noise_samples: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least_one(self, "noise_samples")


@dataclass(frozen=True, kw_only=True)
class ProjectedDescent(WithinBudget):
    """Steps of the size `step_size`, a fraction of epsilon, from a random start in the ball."""

    step_size: float = traced()
    steps: int = traced()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "step_size")
        require_at_least_one(self, "steps")


@choice("attack", "pgd")
@dataclass(frozen=True, kw_only=True)
class PGD(ProjectedDescent):
    """Projected gradient descent: Madry et al. (2018). Gradients as those of `FGSM`."""

    noise_samples: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least_one(self, "noise_samples")


@choice("attack", "spsa")
@dataclass(frozen=True, kw_only=True)
class SPSA(ProjectedDescent):
    """Projected descent along gradients estimated from values: Uesato et al. (2018).

    Attributes:
        directions: Random directions of each estimate, which takes two values for each.
        delta: Length of the finite differences, in pixels of range 1; long enough that they stand
            out from the noise of the two values.
    """

    chunk: ClassVar = 8  # each image is classified 2 * directions times at once

    directions: int
    delta: float = traced()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least_one(self, "directions")
        require_positive(self, "delta")


@choice("attack", "apgd")
@dataclass(frozen=True, kw_only=True)
class APGD(WithinBudget):
    """Descent that halves its own step size: Auto-PGD, Croce and Hein (2020).

    Attributes:
        steps: Of each start.
        restarts: Starts from random points of the ball; the best one counts.
        noise_samples: Independent answers over which each gradient is averaged, and as many, but
            others, that compare points. None: the attack knows the noise. One draw of it, fixed
            for each image, is in every answer that the attack sees and in the one that it is for.
    """

    steps: int = traced()
    restarts: int = traced()
    noise_samples: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least_one(self, "steps", "restarts")
        if self.noise_samples is not None:
            require_at_least_one(self, "noise_samples")
