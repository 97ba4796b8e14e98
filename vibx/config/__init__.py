"""The configuration of a run: schema of `conf/`, validation and the run's identity.

The only place that reads OmegaConf nodes: everything behind it sees frozen dataclasses.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vibx.errors import UserError

TRAIN_IMAGES = 60_000
TEST_IMAGES = 10_000
CLASSES = 10


class ConfigError(UserError):
    """A configuration that cannot be run; the message names the key, the value and the remedy."""


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise `ConfigError` unless the value of `key` satisfies `condition`."""
    if not condition:
        raise ConfigError(f"{key}={value}: must be {allowed}")


@dataclass(frozen=True)
class Data:
    """A data set and the part of it that is used."""

    name: str
    validation: int = 0
    train_images: int | None = None
    held_out_images: int | None = None

    def __post_init__(self) -> None:
        require(
            0 <= self.validation < TRAIN_IMAGES,
            "validation",
            self.validation,
            f"between 0 and {TRAIN_IMAGES - 1}",
        )
        available = {
            "train_images": TRAIN_IMAGES - self.validation,
            "held_out_images": self.validation or TEST_IMAGES,
        }
        for key, most in available.items():
            value = getattr(self, key)
            require(
                value is None or 1 <= value <= most,
                key,
                value,
                f"between 1 and {most}, or null for all",
            )

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return self.train_images or TRAIN_IMAGES - self.validation


@dataclass(frozen=True)
class MLP:
    """Hidden layers of the encoder or the decoder."""

    name: str
    widths: tuple[int, ...]
    activation: str = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        require(all(w >= 1 for w in self.widths), "widths", list(self.widths), "each at least 1")
        allowed = ("relu", "tanh", "gelu", "silu")
        require(self.activation in allowed, "activation", self.activation, one_of(allowed))


@dataclass(frozen=True)
class Linear:
    """A single linear layer: logistic regression on z."""

    name: str


@dataclass(frozen=True)
class GaussianBottleneck:
    """p(z|x) is Gaussian; scales are softplus(rho + scale_shift)."""

    name: str
    scale_shift: float = -5.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.scale_shift), "scale_shift", self.scale_shift, "finite")


@dataclass(frozen=True)
class DeterministicBottleneck:
    """z is a function of x; there is no rate."""

    name: str


@dataclass(frozen=True)
class Marginal:
    """The variational marginal r(z)."""

    name: str


@dataclass(frozen=True)
class VIBObjective:
    """Equation 17, with `train_samples` samples of z per image and step."""

    name: str
    train_samples: int = 1

    def __post_init__(self) -> None:
        require(self.train_samples >= 1, "train_samples", self.train_samples, "at least 1")


@dataclass(frozen=True)
class MaximumLikelihood:
    """Cross entropy of the deterministic model: Table 1's baseline."""

    name: str


@dataclass(frozen=True)
class Dropout:
    """Cross entropy with dropout on the hidden layers."""

    name: str
    rate: float

    def __post_init__(self) -> None:
        require(0 <= self.rate < 1, "rate", self.rate, "in [0, 1)")


@dataclass(frozen=True)
class ConfidencePenalty:
    """Equation 4: cross entropy minus `weight` times the entropy of the prediction."""

    name: str
    weight: float

    def __post_init__(self) -> None:
        require(0 <= self.weight < math.inf, "weight", self.weight, "finite and >= 0")


@dataclass(frozen=True)
class LabelSmoothing:
    """Zeros of the one-hot labels become `epsilon`, then the labels are renormalised."""

    name: str
    epsilon: float

    def __post_init__(self) -> None:
        require(0 <= self.epsilon < math.inf, "epsilon", self.epsilon, "finite and >= 0")


@dataclass(frozen=True)
class Optimizer:
    """Adam with a learning-rate schedule and, unless null, an average of the weights.

    The schedule `staircase` multiplies the rate by `decay_rate` every `decay_epochs`; `cosine`
    takes it to zero over all epochs.
    """

    name: str
    learning_rate: float
    b1: float
    b2: float
    schedule: str
    decay_rate: float = 1.0
    decay_epochs: int = 1
    average_decay: float | None = None

    def __post_init__(self) -> None:
        for key in ("b1", "b2"):
            value = getattr(self, key)
            require(0 <= value < 1, key, value, "in [0, 1)")
        decay = self.average_decay
        require(decay is None or 0 < decay < 1, "average_decay", decay, "in (0, 1), or null")
        require(
            0 < self.learning_rate < math.inf,
            "learning_rate",
            self.learning_rate,
            "finite and > 0",
        )
        schedules = ("constant", "staircase", "cosine")
        require(self.schedule in schedules, "schedule", self.schedule, one_of(schedules))
        require(0 < self.decay_rate <= 1, "decay_rate", self.decay_rate, "in (0, 1]")
        require(self.decay_epochs >= 1, "decay_epochs", self.decay_epochs, "at least 1")


Bottleneck = GaussianBottleneck | DeterministicBottleneck
Decoder = Linear | MLP
Objective = VIBObjective | MaximumLikelihood | Dropout | ConfidencePenalty | LabelSmoothing

GROUPS: dict[str, dict[str, type]] = {
    "data": {"mnist": Data, "fashion_mnist": Data, "kmnist": Data},
    "encoder": {"mlp": MLP},
    "bottleneck": {
        "diagonal": GaussianBottleneck,
        "full_covariance": GaussianBottleneck,
        "deterministic": DeterministicBottleneck,
    },
    "decoder": {"linear": Linear, "mlp": MLP},
    "marginal": {"standard_normal": Marginal},
    "objective": {
        "vib": VIBObjective,
        "maximum_likelihood": MaximumLikelihood,
        "dropout": Dropout,
        "confidence_penalty": ConfidencePenalty,
        "label_smoothing": LabelSmoothing,
    },
    "optimizer": {"author": Optimizer, "fast": Optimizer, "seed_text": Optimizer},
}


@dataclass(frozen=True)
class Execution:
    """How a run is carried out; does not change its result."""

    eval_every: int
    checkpoint_every: int
    root: str
    force: bool

    def __post_init__(self) -> None:
        require(self.eval_every >= 1, "eval_every", self.eval_every, "at least 1")
        require(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "at least 1")


@dataclass(frozen=True)
class Scalars:
    """The keys outside the groups that decide a run's result."""

    beta: float | None
    K: int
    seed: int
    epochs: int
    batch_size: int
    mc_samples: int

    def __post_init__(self) -> None:
        if self.beta is not None:
            require(0 <= self.beta < math.inf, "beta", self.beta, "finite and >= 0")
        require(0 <= self.seed < 2**32, "seed", self.seed, f"between 0 and {2**32 - 1}")
        for key in ("K", "epochs", "batch_size", "mc_samples"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")


@dataclass(frozen=True)
class Config(Scalars):
    """Everything that decides a run's result. beta and marginal are null where there is no rate."""

    data: Data
    encoder: MLP
    bottleneck: Bottleneck
    decoder: Decoder
    marginal: Marginal | None
    objective: Objective
    optimizer: Optimizer

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.batch_size <= self.data.train_size,
            "batch_size",
            self.batch_size,
            f"at most the {self.data.train_size} training images",
        )
        if isinstance(self.objective, VIBObjective):
            require(self.beta is not None, "beta", "null", "a number for objective=vib")
            require(self.marginal is not None, "marginal", "null", "given for objective=vib")
        stochastic = isinstance(self.bottleneck, GaussianBottleneck)
        if stochastic != isinstance(self.objective, VIBObjective):
            remedy = (
                "a stochastic encoder without a rate is objective=vib beta=0"
                if stochastic
                else "objective=vib needs bottleneck=diagonal or full_covariance"
            )
            raise ConfigError(
                f"objective={self.objective.name} with bottleneck={self.bottleneck.name} "
                f"makes no sense: {remedy}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as stored in config.yaml and metrics.json."""
        return plain_values(self)

    @property
    def run_id(self) -> str:
        """A readable slug and the digest of the configuration."""
        match self.objective:
            case VIBObjective():
                number = f"-beta{self.beta:g}"
            case Dropout(rate=value) | ConfidencePenalty(weight=value):
                number = f"-{value:g}"
            case LabelSmoothing(epsilon=value):
                number = f"-{value:g}"
            case _:
                number = ""
        return f"{self.objective.name}-K{self.K}{number}-seed{self.seed}-{digest(self.to_dict())}"


def directory(command: str) -> Path:
    """The configuration of a command: in an installed package's `conf/`, else the checkout's."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return (inside if inside.is_dir() else package.parent / "conf") / command


def parse(cfg: DictConfig) -> tuple[Config, Execution]:
    """Turn a composed Hydra configuration into the run's `Config` and its `Execution`.

    Raises:
      ConfigError: unknown key, wrong type, value out of range, or a senseless combination.
    """
    known = {"hydra", *GROUPS, *field_names(Scalars), *field_names(Execution)}
    refuse_unknown(cfg, known)
    return parse_config(cfg), typed(Execution, cfg)


def parse_config(cfg: DictConfig | dict[str, Any]) -> Config:
    """The part of `parse` that decides the result; also reads a record's `config` back."""
    cfg = OmegaConf.create(cfg)
    groups: dict[str, Any] = {}
    for group, choices in GROUPS.items():
        node = cfg[group]
        if node is None and group == "marginal":
            groups[group] = None
            continue
        groups[group] = chosen(choices, node, group=group)
    scalars = dataclasses.asdict(typed(Scalars, cfg))
    if not isinstance(groups["objective"], VIBObjective):
        scalars["beta"] = groups["marginal"] = None
    return Config(**scalars, **groups)


def chosen(choices: dict[str, type], node: Any, *, group: str) -> Any:
    """Convert a group's node by the schema of the choice that its `name` says."""
    require(isinstance(node, DictConfig), group, node, f"a choice: {one_of(tuple(choices))}")
    name = node.get("name")
    require(name in choices, group, name, one_of(tuple(choices)))
    refuse_unknown(node, field_names(choices[name]), prefix=f"{group}.")
    return typed(choices[name], node, prefix=f"{group}.")


def plain_values(configuration: Any) -> dict[str, Any]:
    """A dataclass as nested plain values, as they come back from JSON."""
    return json.loads(json.dumps(dataclasses.asdict(configuration)))


def digest(content: dict[str, Any]) -> str:
    """8 hex digits of the SHA-256 of plain values."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def typed(schema: type, node: DictConfig, prefix: str = "") -> Any:
    """Convert the schema's keys of a node, refusing what is missing or of another type."""
    try:
        keys = [name for name in field_names(schema) if name in node]
        values = OmegaConf.masked_copy(node, keys)
        return OmegaConf.to_object(OmegaConf.merge(structured(schema), values))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{prefix}{error.full_key}: {str(error).splitlines()[0]}") from error
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error


structured = functools.cache(OmegaConf.structured)  # slow; a merge copies it


def field_names(schema: type) -> list[str]:
    """Names of a dataclass's fields."""
    return [field.name for field in dataclasses.fields(schema)]


def refuse_unknown(node: DictConfig, known: Collection[str], prefix: str = "") -> None:
    """Raise `ConfigError` for a key that is not known, with the one that was probably meant."""
    for key in map(str, node):
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"no such key: {prefix}{key}{hint}")


def one_of(names: tuple[str, ...]) -> str:
    """Spell out the allowed choices of a key."""
    return "one of " + ", ".join(names)
