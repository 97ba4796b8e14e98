"""The configuration of an attack: schema of `conf/attack/`, validation and the result's name."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from vibx.config import (
    CLASSES,
    TEST_IMAGES,
    chosen,
    digest,
    field_names,
    one_of,
    plain_values,
    refuse_unknown,
    require,
    typed,
)

NORMS = ("l2", "linf")
MODES = ("untargeted", "targeted")
CHECKS = 10  # carlini_wagner_l2 looks so often whether to abort


def require_tenths(iterations: int) -> None:
    """Refuse iterations between which carlini_wagner_l2 cannot look at equal distances."""
    whole = iterations >= 1 and iterations % CHECKS == 0
    require(whole, "iterations", iterations, f"a multiple of {CHECKS}")


@dataclass(frozen=True)
class CarliniWagnerL2:
    """The smallest L2 perturbation that reaches the goal, see `vibx.attacks.carlini_wagner`."""

    name: str
    search_steps: int
    iterations: int
    learning_rate: float
    b1: float
    b2: float
    epsilon: float
    initial_constant: float
    confidence: float
    abort_early: bool

    def __post_init__(self) -> None:
        require(self.search_steps >= 1, "search_steps", self.search_steps, "at least 1")
        require_tenths(self.iterations)
        for key in ("learning_rate", "epsilon", "initial_constant"):
            value = getattr(self, key)
            require(0 < value < math.inf, key, value, "finite and > 0")
        for key in ("b1", "b2"):
            require(0 <= getattr(self, key) < 1, key, getattr(self, key), "in [0, 1)")
        require(0 <= self.confidence < math.inf, "confidence", self.confidence, "finite and >= 0")


@dataclass(frozen=True)
class Noise:
    """Random noise of a given norm."""

    name: str
    norm: str
    epsilon: float

    def __post_init__(self) -> None:
        require(self.norm in NORMS, "norm", self.norm, one_of(NORMS))
        require(0 < self.epsilon < math.inf, "epsilon", self.epsilon, "finite and > 0")


@dataclass(frozen=True)
class FGSM(Noise):
    """One gradient step of the size of the budget."""

    noise_samples: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noise_samples >= 1, "noise_samples", self.noise_samples, "at least 1")


@dataclass(frozen=True)
class PGD(FGSM):
    """Projected gradient descent within a budget."""

    step_size: float
    steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.step_size < math.inf, "step_size", self.step_size, "finite and > 0")
        require(self.steps >= 1, "steps", self.steps, "at least 1")


@dataclass(frozen=True)
class SPSA(Noise):
    """Projected descent along gradients estimated from values."""

    step_size: float
    steps: int
    directions: int
    delta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("step_size", "delta"):
            require(0 < getattr(self, key) < math.inf, key, getattr(self, key), "finite and > 0")
        for key in ("steps", "directions"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")


@dataclass(frozen=True)
class Audit:
    """The checks of `vibx.robustness.audit` instead of one attack."""

    name: str
    iterations: int
    search_steps: int
    pgd_steps: int
    spsa_steps: int
    spsa_directions: int
    restarts: int
    transfer_from: str | None

    def __post_init__(self) -> None:
        require_tenths(self.iterations)
        for key in ("search_steps", "pgd_steps", "spsa_steps", "spsa_directions", "restarts"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")


Attack = CarliniWagnerL2 | Noise | FGSM | PGD | SPSA | Audit
ATTACKS: dict[str, type] = {
    "carlini_wagner_l2": CarliniWagnerL2,
    "noise": Noise,
    "fgsm": FGSM,
    "pgd": PGD,
    "spsa": SPSA,
    "audit": Audit,
}


@dataclass(frozen=True)
class AttackScalars:
    """The keys outside the group `attack` that decide a result."""

    mode: str
    target: int | None
    n: int
    images: tuple[int, ...] | None
    samples: int | None
    seed: int
    rechecks: int

    def __post_init__(self) -> None:
        if self.images is not None:
            object.__setattr__(self, "images", tuple(self.images))
            inside = all(0 <= index < TEST_IMAGES for index in self.images) and self.images
            require(bool(inside), "images", list(self.images), f"indices below {TEST_IMAGES}")
        require(self.mode in MODES, "mode", self.mode, one_of(MODES))
        if self.target is not None:
            require(self.mode == "targeted", "target", self.target, "null unless mode=targeted")
            require(0 <= self.target < CLASSES, "target", self.target, "a class, 0 to 9")
        require(1 <= self.n <= TEST_IMAGES, "n", self.n, f"between 1 and {TEST_IMAGES}")
        require(self.samples is None or self.samples >= 1, "samples", self.samples, "at least 1")
        require(0 <= self.seed < 2**32, "seed", self.seed, f"between 0 and {2**32 - 1}")
        require(self.rechecks >= 1, "rechecks", self.rechecks, "at least 1")


@dataclass(frozen=True)
class AttackConfig(AttackScalars):
    """Everything that decides what an attack on a given run finds."""

    attack: Attack

    def __post_init__(self) -> None:
        super().__post_init__()
        sampled = self.samples is not None or not isinstance(self.attack, Audit)
        require(sampled, "samples", self.samples, "at least 1 in an audit")

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as stored beside the result."""
        return plain_values(self)

    @property
    def indices(self) -> list[int]:
        """The test images that are attacked."""
        return list(range(self.n)) if self.images is None else list(self.images)

    @property
    def name(self) -> str:
        """A readable slug and the digest of the configuration."""
        content = self.to_dict()
        if self.images is not None:
            del content["n"]
        return f"{self.attack.name}-{self.mode}-{digest(content)}"


@dataclass(frozen=True)
class AttackExecution:
    """Which runs are attacked, and whether again."""

    root: str
    runs: str
    force: bool


def parse_attack(cfg: DictConfig) -> tuple[AttackConfig, AttackExecution]:
    """Turn a composed configuration into the attack and the runs it is for.

    Raises:
      ConfigError: unknown key, wrong type, or value out of range.
    """
    known = {"hydra", "attack", *field_names(AttackScalars), *field_names(AttackExecution)}
    refuse_unknown(cfg, known)
    attack = chosen(ATTACKS, cfg.attack, group="attack")
    scalars = dataclasses.asdict(typed(AttackScalars, cfg))
    return AttackConfig(**scalars, attack=attack), typed(AttackExecution, cfg)
