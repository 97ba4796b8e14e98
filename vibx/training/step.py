"""The training step and the epoch, for one run; many runs are `jax.vmap` of the same function."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from vibx.config import Config
from vibx.data import Images
from vibx.data.device import epoch_order, scale
from vibx.objectives import Terms, objective
from vibx.tracing import once_per_program, traceable
from vibx.training.group import ALL_RUNS, EACH_RUN, run_mesh, stacked_shape
from vibx.training.optimizer import averaged, averaging_span, direction, learning_rate
from vibx.training.state import TrainState, initial_state, model_definition, state_shape
from vibx.training.streams import Stream, stream

MEMORY_SHARE = 0.8  # of a device's, for the runs trained at once


class Measurements(NamedTuple):
    """Means over the images of an epoch, in nats, while the weights moved; rate as in `Terms`."""

    objective: Float[Array, ""] | float
    distortion: Float[Array, ""] | float
    rate: Float[Array, ""] | float | None


def train_step(
    definition: nnx.GraphDef,
    cfg: Config,
    state: TrainState,
    x: Float[Array, "batch pixels"],
    y: Int[Array, "batch"],
    *,
    key: Key[Array, ""],
) -> tuple[TrainState, Measurements]:
    """One step of the optimizer on the objective's mean over a batch, equation 17."""

    def loss(parameters: dict) -> tuple[Array, Terms]:
        terms = objective(
            cfg.objective,
            nnx.merge(definition, parameters),
            x,
            y,
            key=jax.random.fold_in(stream(key, Stream.NOISE), state.step),
            beta=cfg.beta,
        )
        return terms.objective.mean(), terms

    gradients, terms = jax.grad(loss, has_aux=True)(state.parameters)
    update, moments = direction(cfg.optimizer).update(gradients, state.moments, state.parameters)
    rate = learning_rate(cfg, state.step)
    parameters = jax.tree.map(lambda p, u: p - rate * u, state.parameters, update)
    average, decay = state.average, cfg.optimizer.average_decay
    if average is not None and decay is not None:
        span = averaging_span(decay, state.step + 1)
        average = averaged(average, parameters, span)
    measurements = Measurements(*jax.tree.map(jnp.mean, terms))
    return TrainState(state.step + 1, parameters, moments, average), measurements


def train_epoch(
    definition: nnx.GraphDef, cfg: Config, state: TrainState, images: Images, key: Key[Array, ""]
) -> tuple[TrainState, Measurements]:
    """One pass over the images in a fresh order; a batch that would not fill is left out.

    The order and the noise depend on the run's key and the state's step alone.

    Args:
      definition: the model without its weights.
      cfg: as `traceable` makes it.
      state: before the epoch.
      images: all of the training images.
      key: of the run's seed.
    """
    epoch = state.step // cfg.steps_per_epoch
    order = epoch_order(
        jax.random.fold_in(stream(key, Stream.DATA), epoch),
        n=images.pixels.shape[0],
        batch_size=cfg.batch_size,
    )
    assert order.shape[0] == cfg.steps_per_epoch

    def step(state: TrainState, rows: Int[Array, "batch"]) -> tuple[TrainState, Measurements]:
        x, y = scale(images.pixels[rows]), images.labels[rows]
        return train_step(definition, cfg, state, x, y, key=key)

    state, measurements = jax.lax.scan(step, state, order)
    return state, jax.tree.map(jnp.mean, measurements)


@once_per_program
def compiled_epoch(cfg: Config, *, runs: int = 1) -> jax.stages.Compiled:
    """`train_epoch` of (cfg, state, images, key), compiled; the state is donated.

    With more than one run, cfg, state and key have a leading run axis, which is sharded over the
    local devices; their number must divide it.
    """
    epoch = functools.partial(train_epoch, model_definition(cfg))
    if runs > 1:
        epoch = jax.shard_map(
            jax.vmap(epoch, in_axes=(0, 0, None, 0)),
            mesh=run_mesh(),
            in_specs=(EACH_RUN, EACH_RUN, ALL_RUNS, EACH_RUN),
            out_specs=EACH_RUN,
        )
    one_run = jax.eval_shape(lambda: (traceable(cfg), state_shape(cfg), jax.random.key(0)))
    traced, state, key = stacked_shape(one_run, runs=runs)
    jitted = jax.jit(epoch, donate_argnums=1, compiler_options=compiler_options())
    return jitted.lower(traced, state, images_shape(cfg), key).compile()


def images_shape(cfg: Config) -> Images:
    """The shapes of a run's training images."""
    n, pixels = cfg.data.train_size, cfg.data.info.pixels
    return Images(
        jax.ShapeDtypeStruct((n, pixels), jnp.uint8), jax.ShapeDtypeStruct((n,), jnp.int32)
    )


def runs_that_fit(cfg: Config) -> int:
    """How many runs to train at once: one on a CPU, elsewhere as many as memory holds.

    Under `vmap` a CPU's batched matrix products are slower than one run's after another.
    """
    if jax.default_backend() == "cpu":
        return 1
    need = compiled_epoch(cfg).memory_analysis()
    memory = [device.memory_stats() for device in jax.local_devices()]
    if need is None or not all(memory):  # a device that does not tell
        return len(memory)
    per_run = need.temp_size_in_bytes + need.output_size_in_bytes
    limit = min(stats["bytes_limit"] for stats in memory)  # in use now or not: groups stay the same
    return len(memory) * max(1, int(MEMORY_SHARE * limit / per_run))


def compiler_options() -> dict[str, bool]:
    """On a CPU, spare the copies of all moments that XLA otherwise makes in every step."""
    on_cpu = jax.default_backend() == "cpu"
    return {"xla_cpu_copy_insertion_use_region_analysis": True} if on_cpu else {}


@once_per_program
def compiled_initial_state(cfg: Config) -> Callable[[Key[Array, ""]], TrainState]:
    """`initial_state` of a program's runs, jitted."""
    return jax.jit(functools.partial(initial_state, cfg))
