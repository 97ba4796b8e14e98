"""The choices of `conf/train/`, apart from the data: their names, their keys and what is allowed.

To add one: its schema here, what it does where its group is read (`vibx.objectives.objective`,
`vibx.marginals.marginal`, `vibx.networks.layers`, `vibx.encodings.parameterisation`,
`vibx.training.optimizer.direction`), and its yaml.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from vibx.choices import apart, choice, one_of, require, traced


@dataclass(frozen=True, kw_only=True)
class Named:
    """What every choice has: the name of its yaml."""

    name: str = apart()


# encoder, decoder


@dataclass(frozen=True, kw_only=True)
class Layers(Named):
    """Hidden layers of the encoder or the decoder."""

    widths: tuple[int, ...]
    activation: str = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        require(all(w >= 1 for w in self.widths), "widths", list(self.widths), "each at least 1")
        allowed = ("relu", "tanh", "gelu", "silu")
        require(self.activation in allowed, "activation", self.activation, one_of(allowed))


@choice("encoder", "mlp")
@choice("decoder", "mlp")
@dataclass(frozen=True, kw_only=True)
class MLP(Layers):
    """A multi-layer perceptron."""


@choice("encoder", "cnn")
@dataclass(frozen=True, kw_only=True)
class CNN(Layers):
    """Convolutions of stride 2, one for each of `channels`, then dense layers of `widths`."""

    channels: tuple[int, ...] = (32, 64)
    kernel: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "channels", tuple(self.channels))
        channels = list(self.channels)
        require(all(c >= 1 for c in channels) and channels != [], "channels", channels, "1 or more")
        require(self.kernel >= 1, "kernel", self.kernel, "at least 1")


@choice("decoder", "linear")
@dataclass(frozen=True, kw_only=True)
class Linear(Named):
    """A single linear layer: logistic regression on z."""


# bottleneck


@dataclass(frozen=True, kw_only=True)
class Gaussian(Named):
    """p(z|x) is Gaussian; scales are softplus(rho + scale_shift)."""

    stochastic: ClassVar = True
    scale_shift: float = -5.0

    def __post_init__(self) -> None:
        require(math.isfinite(self.scale_shift), "scale_shift", self.scale_shift, "finite")


@choice("bottleneck", "diagonal")
@dataclass(frozen=True, kw_only=True)
class Diagonal(Gaussian):
    """A diagonal covariance: section 4.1.1."""


@choice("bottleneck", "full_covariance")
@dataclass(frozen=True, kw_only=True)
class FullCovariance(Gaussian):
    """A full covariance by its Cholesky factor: section 4.1.2."""


@choice("bottleneck", "deterministic")
@dataclass(frozen=True, kw_only=True)
class Deterministic(Named):
    """z is a function of x; there is no rate."""

    stochastic: ClassVar = False


# marginal


@choice("marginal", "standard_normal")
@dataclass(frozen=True, kw_only=True)
class StandardNormal(Named):
    """r(z) = N(0, I), fixed."""


# objective


@dataclass(frozen=True, kw_only=True)
class StochasticObjective(Named):
    """An objective with a rate, which `beta` weighs, of a model with a Gaussian bottleneck."""

    stochastic: ClassVar = True


@dataclass(frozen=True, kw_only=True)
class DeterministicObjective(Named):
    """An objective of the deterministic model, without a rate."""

    stochastic: ClassVar = False


@choice("objective", "vib")
@dataclass(frozen=True, kw_only=True)
class VIB(StochasticObjective):
    """Equation 17, with `train_samples` samples of z per image and step."""

    train_samples: int = 1

    def __post_init__(self) -> None:
        require(self.train_samples >= 1, "train_samples", self.train_samples, "at least 1")


@choice("objective", "maximum_likelihood")
@dataclass(frozen=True, kw_only=True)
class MaximumLikelihood(DeterministicObjective):
    """Cross entropy of the deterministic model: Table 1's baseline."""


@choice("objective", "dropout")
@dataclass(frozen=True, kw_only=True)
class Dropout(DeterministicObjective):
    """Cross entropy with dropout on the hidden layers."""

    rate: float = traced()

    def __post_init__(self) -> None:
        require(0 <= self.rate < 1, "rate", self.rate, "in [0, 1)")


@choice("objective", "confidence_penalty")
@dataclass(frozen=True, kw_only=True)
class ConfidencePenalty(DeterministicObjective):
    """Equation 4: cross entropy minus `weight` times the entropy of the prediction."""

    weight: float = traced()

    def __post_init__(self) -> None:
        require(0 <= self.weight < math.inf, "weight", self.weight, "finite and >= 0")


@choice("objective", "label_smoothing")
@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(DeterministicObjective):
    """Zeros of the one-hot labels become `epsilon`, then the labels are renormalised."""

    epsilon: float = traced()

    def __post_init__(self) -> None:
        require(0 <= self.epsilon <= 1, "epsilon", self.epsilon, "in [0, 1]: the true class has 1")


# optimizer


@dataclass(frozen=True, kw_only=True)
class Optimizer(Named):
    """A learning-rate schedule and, unless null, an average of the weights.

    The schedule `staircase` multiplies the rate by `decay_rate` every `decay_epochs`; `cosine`
    takes it to zero over all epochs.
    """

    learning_rate: float = traced()
    schedule: str
    decay_rate: float = 1.0
    decay_epochs: int = 1
    average_decay: float | None = None

    def __post_init__(self) -> None:
        rate, decay = self.learning_rate, self.average_decay
        require(0 < rate < math.inf, "learning_rate", rate, "finite and > 0")
        schedules = ("constant", "staircase", "cosine")
        require(self.schedule in schedules, "schedule", self.schedule, one_of(schedules))
        require(0 < self.decay_rate <= 1, "decay_rate", self.decay_rate, "in (0, 1]")
        require(self.decay_epochs >= 1, "decay_epochs", self.decay_epochs, "at least 1")
        require(decay is None or 0 < decay < 1, "average_decay", decay, "in (0, 1), or null")


@choice("optimizer")  # under any name: a recipe is a yaml
@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Kingma and Ba's: decays of the averages of the gradient and of its square.

    With Loshchilov and Hutter's decoupled `weight_decay`: at each step all parameters also shrink
    by the learning rate times that.
    """

    b1: float
    b2: float
    weight_decay: float = traced(later=True, default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        decay = self.weight_decay
        require(0 <= decay < math.inf, "weight_decay", decay, "finite and >= 0")
        for key in ("b1", "b2"):
            require(0 <= getattr(self, key) < 1, key, getattr(self, key), "in [0, 1)")
