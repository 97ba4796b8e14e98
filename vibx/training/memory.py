"""Whether a run fits into memory: told before it is trained, from shapes alone."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import psutil
from flax import nnx

from vibx.config import Config
from vibx.errors import ConfigError
from vibx.evaluation.predict import BATCH
from vibx.training.state import TrainState, model_definition, state_shape

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def require_memory(cfg: Config, *, runs: int = 1) -> None:
    """Refuse runs of a configuration, trained together, for which memory is too small for sure.

    Raises:
      ConfigError: it is.
    """
    free = free_bytes()
    for need, what in ((state_bytes, "weights and moments"), (peak_bytes, "weights and one batch")):
        size = runs * need(cfg)
        if size > free:
            together = f" of {runs} runs at once" if runs > 1 else ""
            raise ConfigError(
                f"{cfg.run_id} does not fit into memory: {what}{together} take {in_gb(size)} or "
                f"more, and {in_gb(free)} are free"
            )


def state_bytes(cfg: Config) -> int:
    """Bytes of the weights, their gradient, the optimizer's moments and the average."""
    state = state_shape(cfg)
    return tree_bytes(state) + tree_bytes(state.parameters)


def peak_bytes(cfg: Config) -> int:
    """Bytes of the state and of the encodings of a batch, that of a step or of an evaluation."""
    state = state_shape(cfg)
    samples = getattr(cfg.objective, "train_samples", 1)
    step = 2 * encoded_bytes(cfg, state, images=cfg.batch_size, samples=samples)
    images = min(BATCH, cfg.data.held_out_size)
    averaged = cfg.mc_samples if cfg.objective.stochastic else 1
    evaluation = encoded_bytes(cfg, state, images=images, samples=averaged)
    return max(state_bytes(cfg) + step, tree_bytes(state) + evaluation)


def encoded_bytes(cfg: Config, state: TrainState, *, images: int, samples: int) -> int:
    """Bytes of the encodings of images, and of samples of z of each with their logits."""

    def encode(parameters: dict, x: jax.Array) -> Any:
        return nnx.merge(model_definition(cfg), parameters).encoder(x)

    x = jax.ShapeDtypeStruct((images, cfg.data.info.pixels), jnp.float32)
    encodings = tree_bytes(jax.eval_shape(encode, state.parameters, x))
    return encodings + images * samples * (cfg.K + cfg.data.info.classes) * x.dtype.itemsize


def tree_bytes(shapes: Any) -> int:
    """Bytes of arrays of these shapes; Python's numbers do not overflow."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def free_bytes() -> int:
    """Bytes that a run can have: of all local devices, or of the machine."""
    devices = [device.memory_stats() for device in jax.local_devices()]
    if jax.default_backend() != "cpu" and all(devices):
        return sum(stats["bytes_limit"] - stats["bytes_in_use"] for stats in devices)
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.exists() else "max"
    return min(psutil.virtual_memory().available, int(limit) if limit.isdigit() else 2**63)


def in_gb(size: int) -> str:
    """A number of bytes, as people say it."""
    return f"{size / 1e9:,.1f} GB"
