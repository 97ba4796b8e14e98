"""What a compiled training program depends on, and the state that it carries."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int, Key

from vibx import config
from vibx.networks import VIB
from vibx.objectives import Hyperparameters
from vibx.training.optimizer import scale_by_adam
from vibx.training.streams import Stream, stream

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Program:
    """The static part of a configuration: runs with equal programs share a compilation."""

    encoder: config.MLP
    bottleneck: config.Bottleneck
    K: int
    decoder: config.Decoder
    objective: str
    train_samples: int
    epochs: int
    steps_per_epoch: int
    batch_size: int
    b1: float
    b2: float
    schedule: str
    decay_rate: float
    decay_epochs: int
    average_decay: float | None

    def schedule_fraction(self, step: Int[Array, ""]) -> Array:
        """The learning rate at a step, as a fraction of the initial one."""
        match self.schedule:
            case "staircase":
                return optax.exponential_decay(
                    1.0,
                    transition_steps=self.decay_epochs * self.steps_per_epoch,
                    decay_rate=self.decay_rate,
                    staircase=True,
                )(step)
            case "cosine":
                return optax.cosine_decay_schedule(1.0, self.epochs * self.steps_per_epoch)(step)
            case _:
                return jnp.ones(())


def split(cfg: config.Config) -> tuple[Program, Hyperparameters]:
    """Part a configuration into what is compiled in and the numbers that are traced."""
    objective, optimizer = cfg.objective, cfg.optimizer
    program = Program(
        encoder=cfg.encoder,
        bottleneck=cfg.bottleneck,
        K=cfg.K,
        decoder=cfg.decoder,
        objective=objective.name,
        train_samples=getattr(objective, "train_samples", 1),
        epochs=cfg.epochs,
        steps_per_epoch=cfg.data.train_size // cfg.batch_size,
        batch_size=cfg.batch_size,
        b1=optimizer.b1,
        b2=optimizer.b2,
        schedule=optimizer.schedule,
        decay_rate=optimizer.decay_rate,
        decay_epochs=optimizer.decay_epochs,
        average_decay=optimizer.average_decay,
    )
    numbers = Hyperparameters(
        learning_rate=optimizer.learning_rate,
        beta=cfg.beta or 0.0,
        dropout_rate=getattr(objective, "rate", 0.0),
        penalty_weight=getattr(objective, "weight", 0.0),
        smoothing=getattr(objective, "epsilon", 0.0),
    )
    return program, jax.tree.map(jnp.float32, numbers)


class TrainState(NamedTuple):
    """One run's state; under `vmap` every leaf has a leading run axis."""

    step: Int[Array, ""]
    parameters: Parameters
    adam: optax.OptState
    average: Parameters | None


def build(program: Program, key: Key[Array, ""]) -> VIB:
    """The model with freshly drawn weights."""
    return VIB(
        encoder=program.encoder,
        bottleneck=program.bottleneck,
        K=program.K,
        decoder=program.decoder,
        rngs=nnx.Rngs(stream(key, Stream.INIT)),
    )


def initial_state(program: Program, key: Key[Array, ""]) -> TrainState:
    """The state before the first step."""
    parameters = nnx.to_pure_dict(nnx.state(build(program, key), nnx.Param))
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        parameters=parameters,
        adam=scale_by_adam(b1=program.b1, b2=program.b2).init(parameters),
        average=None if program.average_decay is None else zeros,
    )


def evaluated_parameters(state: TrainState) -> Parameters:
    """The weights that stand for the run: their debiased average, or the last ones."""
    return state.parameters if state.average is None else state.average


@functools.cache
def model_definition(program: Program) -> nnx.GraphDef:
    """The model without its weights."""
    return nnx.graphdef(nnx.eval_shape(lambda: build(program, jax.random.key(0))))


def model_with(program: Program, parameters: Parameters) -> VIB:
    """The model with the given weights."""
    return nnx.merge(model_definition(program), parameters)
