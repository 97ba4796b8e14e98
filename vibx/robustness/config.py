"""The configuration of an attack on runs: validation, and the result's name. Imports no jax."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from vibx.attacks.settings import Attack, require_at_least_one, require_segments
from vibx.choices import choice, identity, one_of, require
from vibx.config import (
    Config,
    chosen,
    digest,
    expand_paths,
    plain_values,
    resolved,
    typed,
)

MODES = ("untargeted", "targeted")


@choice("attack", "audit")
@dataclass(frozen=True, kw_only=True)
class Audit(Attack):
    """The checks of `vibx.robustness.audit` instead of one attack.

    Attributes:
        iterations: Of Carlini-Wagner in each search step, a multiple of 10.
        search_steps: Of Carlini-Wagner.
        pgd_steps: Of projected gradient descent.
        spsa_steps: Of the black box.
        spsa_directions: Of each of its estimates, which take two values for each.
        restarts: Random starts of projected gradient descent.
        transfer_from: A deterministic run whose adversarial images are tried, as `runs=`.
    """

    iterations: int
    search_steps: int
    pgd_steps: int
    spsa_steps: int
    spsa_directions: int
    restarts: int
    transfer_from: str | None

    def __post_init__(self) -> None:
        require_segments(self.iterations)
        counts = ("search_steps", "pgd_steps", "spsa_steps", "spsa_directions", "restarts")
        require_at_least_one(self, *counts)


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
            indices = self.images and min(self.images) >= 0
            require(bool(indices), "images", list(self.images), "indices, 0 or more")
            once = len(set(self.images)) == len(self.images)
            require(once, "images", list(self.images), "indices, each of them once")
        require(self.mode in MODES, "mode", self.mode, one_of(MODES))
        if self.target is not None:
            require(self.mode == "targeted", "target", self.target, "null unless mode=targeted")
            require(self.target >= 0, "target", self.target, "a class, 0 or more")
        require_at_least_one(self, "n", "rechecks")
        require(self.samples is None or self.samples >= 1, "samples", self.samples, "at least 1")
        require(0 <= self.seed < 2**32, "seed", self.seed, f"between 0 and {2**32 - 1}")


@dataclass(frozen=True)
class AttackConfig(AttackScalars):
    """Everything that decides what an attack on a given run finds."""

    attack: Attack

    def __post_init__(self) -> None:
        super().__post_init__()
        sampled = self.samples is not None or not isinstance(self.attack, Audit)
        require(sampled, "samples", "null", "at least 1 in an audit")

    def check_sizes(self, cfg: Config) -> None:
        """Refuse images or a class that a run's data set does not have.

        Raises:
          ConfigError: it does not.
        """
        info = cfg.data.info
        data = f"{cfg.data.name} ({info.source})"
        most, allowed = info.test_images, f"{info.test_images}, the test images of {data}"
        if self.images is None:
            require(self.n <= most, "n", self.n, f"at most {allowed}")
        else:
            indices = list(self.images)
            require(max(indices) < most, "images", indices, f"indices below {allowed}")
        if self.target is not None:
            allowed = f"below {info.classes}, the classes of {data}"
            require(self.target < info.classes, "target", self.target, allowed)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as stored beside the result."""
        return plain_values(self)

    @property
    def indices(self) -> list[int]:
        """The test images that are attacked."""
        return list(range(self.n)) if self.images is None else list(self.images)

    @property
    def name(self) -> str:
        """A readable slug and the digest of the identity."""
        content = identity(self)
        if self.images is not None:
            del content["n"]
        return f"{self.attack.name}-{self.mode}-{digest(content)}"


@dataclass(frozen=True)
class AttackExecution:
    """Which runs are attacked, or which exported one (`weights`, its directory); whether again."""

    root: str
    runs: str
    weights: str | None
    force: bool

    def __post_init__(self) -> None:
        expand_paths(self, "root")
        if self.weights is not None:
            require(not self.runs, "runs", self.runs, "empty beside weights, which are of one run")
            expand_paths(self, "weights")


def parse_attack(cfg: DictConfig) -> tuple[AttackConfig, AttackExecution]:
    """Turn a composed configuration into the attack and the runs it is for.

    Raises:
      ConfigError: unknown key, wrong type, or value out of range.
    """
    values = resolved(cfg, AttackConfig, AttackExecution)
    return parse_attack_config(values), typed(AttackExecution, values)


def parse_attack_config(values: dict[str, Any]) -> AttackConfig:
    """The part of `parse_attack` that decides the result; also reads a record's `attack` back."""
    scalars = dataclasses.asdict(typed(AttackScalars, values))
    return AttackConfig(**scalars, attack=chosen("attack", values.get("attack")))
