"""The training step and the epoch, for one run; many runs are `jax.vmap` of the same function."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vibx.data import Images, epoch_order, scale
from vibx.networks import PIXELS
from vibx.objectives import OBJECTIVES, Hyperparameters, Terms
from vibx.training.group import ALL_RUNS, EACH_RUN, run_mesh, stacked_shape
from vibx.training.optimizer import averaged, averaging_span, scale_by_adam
from vibx.training.state import Program, TrainState, initial_state, model_with
from vibx.training.streams import Stream, stream

MEMORY_SHARE = 0.8  # of what is free on a device, for the runs trained at once


class Measurements(NamedTuple):
    """Means over the images of an epoch, in nats, while the weights moved."""

    objective: Float[Array, ""]
    distortion: Float[Array, ""]
    rate: Float[Array, ""]


def train_step(
    program: Program,
    state: TrainState,
    x: Float[Array, "batch 784"],
    y: Int[Array, "batch"],
    *,
    numbers: Hyperparameters,
    key: Key[Array, ""],
) -> tuple[TrainState, Measurements]:
    """One step of Adam on the objective's mean over a batch."""

    def loss(parameters: dict) -> tuple[Array, Terms]:
        terms = OBJECTIVES[program.objective](
            model_with(program, parameters),
            x,
            y,
            key=jax.random.fold_in(stream(key, Stream.NOISE), state.step),
            numbers=numbers,
            train_samples=program.train_samples,
        )
        return terms.objective.mean(), terms

    gradients, terms = jax.grad(loss, has_aux=True)(state.parameters)
    adam = scale_by_adam(b1=program.b1, b2=program.b2)
    direction, moments = adam.update(gradients, state.adam)
    learning_rate = numbers.learning_rate * program.schedule_fraction(state.step)
    parameters = jax.tree.map(lambda p, d: p - learning_rate * d, state.parameters, direction)
    average = state.average
    if program.average_decay is not None:
        span = averaging_span(program.average_decay, moments.count)
        average = averaged(average, parameters, span)
    measurements = Measurements(*(term.mean() for term in terms))
    return TrainState(state.step + 1, parameters, moments, average), measurements


def train_epoch(
    program: Program,
    state: TrainState,
    images: Images,
    numbers: Hyperparameters,
    key: Key[Array, ""],
) -> tuple[TrainState, Measurements]:
    """One pass over the images in a fresh order; a batch that would not fill is left out.

    The order and the noise depend on the run's key and the state's step alone.
    """
    epoch = state.step // program.steps_per_epoch
    order = epoch_order(
        jax.random.fold_in(stream(key, Stream.DATA), epoch),
        n=images.pixels.shape[0],
        batch_size=program.batch_size,
    )
    assert order.shape[0] == program.steps_per_epoch

    def step(state: TrainState, rows: Int[Array, "batch"]) -> tuple[TrainState, Measurements]:
        x, y = scale(images.pixels[rows]), images.labels[rows]
        return train_step(program, state, x, y, numbers=numbers, key=key)

    state, measurements = jax.lax.scan(step, state, order)
    return state, jax.tree.map(jnp.mean, measurements)


@functools.cache
def compiled_epoch(program: Program, images: int, *, runs: int = 1) -> jax.stages.Compiled:
    """`train_epoch` on so many images, compiled; the state is donated.

    With more than one run, state, numbers and key have a leading run axis, which is sharded over
    the local devices; their number must divide it.
    """
    epoch = functools.partial(train_epoch, program)
    if runs > 1:
        epoch = jax.shard_map(
            jax.vmap(epoch, in_axes=(0, None, 0, 0)),
            mesh=run_mesh(),
            in_specs=(EACH_RUN, ALL_RUNS, EACH_RUN, EACH_RUN),
            out_specs=EACH_RUN,
        )
    state, data, numbers, key = jax.eval_shape(lambda: example_arguments(program, images))
    own = stacked_shape((state, numbers, key), runs=runs)
    jitted = jax.jit(epoch, donate_argnums=0, compiler_options=compiler_options())
    return jitted.lower(own[0], data, *own[1:]).compile()


def example_arguments(
    program: Program, images: int
) -> tuple[TrainState, Images, Hyperparameters, Key[Array, ""]]:
    """Arguments of `train_epoch` of one run after the program, for their shapes."""
    key = jax.random.key(0)
    pixels, labels = jnp.zeros((images, PIXELS), jnp.uint8), jnp.zeros(images, jnp.int32)
    numbers = jax.tree.map(jnp.float32, Hyperparameters(learning_rate=0.0))
    return initial_state(program, key), Images(pixels, labels), numbers, key


def runs_that_fit(program: Program, images: int) -> int:
    """How many runs to train at once: one on a CPU, elsewhere as many as memory holds.

    Under `vmap` a CPU's batched matrix products are slower than one run's after another.
    """
    if jax.default_backend() == "cpu":
        return 1
    need = compiled_epoch(program, images).memory_analysis()
    memory = [device.memory_stats() for device in jax.local_devices()]
    if need is None or not all(memory):  # a device that does not tell
        return len(memory)
    per_run = need.temp_size_in_bytes + need.output_size_in_bytes
    free = min(stats["bytes_limit"] - stats["bytes_in_use"] for stats in memory)
    return len(memory) * max(1, int(MEMORY_SHARE * free / per_run))


def compiler_options() -> dict[str, bool]:
    """On a CPU, spare the copies of all moments that XLA otherwise makes in every step."""
    on_cpu = jax.default_backend() == "cpu"
    return {"xla_cpu_copy_insertion_use_region_analysis": True} if on_cpu else {}


@functools.cache
def compiled_initial_state(program: Program) -> Callable[[Key[Array, ""]], TrainState]:
    """`initial_state` of one run, jitted."""
    return jax.jit(functools.partial(initial_state, program))
