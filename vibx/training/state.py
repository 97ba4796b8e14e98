"""The state that training carries, and the model that it is the state of."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int, Key

from vibx.config import Config
from vibx.networks import VIB
from vibx.tracing import once_per_program
from vibx.training.optimizer import direction
from vibx.training.streams import Stream, stream

Parameters = dict[str, Any]


class TrainState(NamedTuple):
    """One run's state; under `vmap` every leaf has a leading run axis."""

    step: Int[Array, ""]
    parameters: Parameters
    moments: optax.OptState  # the optimizer's
    average: Parameters | None


def build(cfg: Config, key: Key[Array, ""]) -> VIB:
    """The model with freshly drawn weights."""
    return VIB(cfg, rngs=nnx.Rngs(stream(key, Stream.INIT)))


def initial_state(cfg: Config, key: Key[Array, ""]) -> TrainState:
    """The state before the first step."""
    parameters = nnx.to_pure_dict(nnx.state(build(cfg, key), nnx.Param))
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        parameters=parameters,
        moments=direction(cfg.optimizer).init(parameters),
        average=None if cfg.optimizer.average_decay is None else zeros,
    )


@once_per_program
def state_shape(cfg: Config) -> TrainState:
    """The shapes of a run's state."""
    return jax.eval_shape(lambda: initial_state(cfg, jax.random.key(0)))


def evaluated_parameters(state: TrainState) -> Parameters:
    """The weights that stand for the run: their debiased average, or the last ones."""
    return state.parameters if state.average is None else state.average


@once_per_program
def model_definition(cfg: Config) -> nnx.GraphDef:
    """The model without its weights."""
    return nnx.graphdef(nnx.eval_shape(lambda: build(cfg, jax.random.key(0))))


def model_with(cfg: Config, parameters: Parameters) -> VIB:
    """The model with the given weights."""
    return nnx.merge(model_definition(cfg), parameters)
