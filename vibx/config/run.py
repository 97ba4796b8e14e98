"""The configuration of a run: everything that decides its result, and the run's name."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from vibx.choices import GROUPS, apart, identity, names_of, require, traced
from vibx.config import schemas
from vibx.config.conversion import (
    LARGEST_INDEX,
    chosen,
    digest,
    expand_paths,
    field_names,
    plain_values,
    resolved,
    typed,
)
from vibx.data.schemas import Data
from vibx.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run is carried out; does not change its result."""

    eval_every: int
    checkpoint_every: int
    root: str
    force: bool

    def __post_init__(self) -> None:
        expand_paths(self, "root")
        for key in ("eval_every", "checkpoint_every"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")


@dataclass(frozen=True, kw_only=True)
class Scalars:
    """The keys outside the groups that decide a run's result."""

    beta: float | None = traced()
    K: int
    seed: int = apart()
    epochs: int
    batch_size: int
    mc_samples: int = apart()

    def __post_init__(self) -> None:
        if self.beta is not None:
            require(0 <= self.beta < math.inf, "beta", self.beta, "finite and >= 0")
        require(0 <= self.seed < 2**32, "seed", self.seed, f"between 0 and {2**32 - 1}")
        for key in ("K", "epochs", "batch_size", "mc_samples"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")


@dataclass(frozen=True, kw_only=True)
class Config(Scalars):
    """Everything that decides a run's result. beta and marginal are null where there is no rate.

    What the model is built from is compiled in as a whole, since runs of a program share the
    model's definition.
    """

    data: Data = traced()
    encoder: schemas.Layers
    bottleneck: schemas.Gaussian | schemas.Deterministic
    decoder: schemas.Layers | schemas.Linear
    marginal: schemas.Named | None
    objective: schemas.StochasticObjective | schemas.DeterministicObjective = traced()
    optimizer: schemas.Optimizer = traced()

    def __post_init__(self) -> None:
        super().__post_init__()
        objective, bottleneck = self.objective, self.bottleneck
        if objective.stochastic:
            for key in ("beta", "marginal"):
                given = getattr(self, key) is not None
                require(given, key, "null", f"given for objective={objective.name}")
        if objective.stochastic != bottleneck.stochastic:
            remedy = (
                f"objective={objective.name} needs bottleneck=diagonal or full_covariance"
                if objective.stochastic
                else "a stochastic encoder without a rate is objective=vib beta=0"
            )
            raise ConfigError(
                f"objective={objective.name} with bottleneck={bottleneck.name} makes no sense: "
                f"{remedy}"
            )

    def check_sizes(self) -> None:
        """Refuse more images than the data set has, and more steps than can be counted.

        Raises:
          ConfigError: it has fewer, or cannot be read.
        """
        self.data.check_sizes()
        images = self.data.train_size
        fits = self.batch_size <= images
        require(fits, "batch_size", self.batch_size, f"at most the {images} training images")
        most = LARGEST_INDEX // self.steps_per_epoch
        allowed = f"at most {most}: steps are an int32"
        decay_epochs = self.optimizer.decay_epochs
        require(self.epochs <= most, "epochs", self.epochs, allowed)
        require(decay_epochs <= most, "optimizer.decay_epochs", decay_epochs, allowed)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches of the training images."""
        return self.data.train_size // self.batch_size

    @property
    def remarks(self) -> list[str]:
        """What is allowed and seldom meant, a line each."""
        images, steps = self.data.train_size, self.steps_per_epoch
        left_out = images % self.batch_size
        if steps > 1 and left_out * 10 <= images:
            return []
        unused = f" and {left_out} of the {images} images left out" if left_out else ""
        plural = "s" if steps > 1 else ""
        return [f"batch_size={self.batch_size}: every epoch is {steps} step{plural}{unused}"]

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as stored in config.yaml and metrics.json."""
        return plain_values(self)

    @property
    def run_id(self) -> str:
        """A readable slug, with the numbers of the objective, and the digest of the identity."""
        parts = [self.objective.name, f"K{self.K}"]
        if self.beta is not None:
            parts.append(f"beta{self.beta:g}")
        own = names_of(type(self.objective), role="traced")
        parts += [f"{getattr(self.objective, name):g}" for name in own]
        return "-".join([*parts, f"seed{self.seed}", digest(identity(self))])


def parse(cfg: DictConfig) -> tuple[Config, Execution]:
    """Turn a composed Hydra configuration into the run's `Config` and its `Execution`.

    Raises:
      ConfigError: unknown key, wrong type, value out of range, a senseless combination, or a data
        set that cannot be read.
    """
    values = resolved(cfg, Config, Execution)
    run, execution = parse_config(values), typed(Execution, values)
    run.check_sizes()
    return run, execution


def parse_config(values: dict[str, Any]) -> Config:
    """The part of `parse` that decides the result; also reads a record's `config` back.

    A key that the record does not have came later, and has its default.
    """
    scalars = dataclasses.asdict(typed(Scalars, values))
    of_groups = {name: values.get(name) for name in field_names(Config) if name in GROUPS}
    without_rate = of_groups["marginal"] is None
    groups: dict[str, Any] = {
        group: None if group == "marginal" and without_rate else chosen(group, given)
        for group, given in of_groups.items()
    }
    if not groups["objective"].stochastic:
        scalars["beta"] = groups["marginal"] = None
    return Config(**scalars, **groups)
