"""The weights that stand for a finished run: from its checkpoint, or exported as safetensors."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vibx import store
from vibx.config import Config
from vibx.training.checkpoint import Checkpoints
from vibx.training.state import Parameters, evaluated_parameters, state_shape


def read_weights(directory: Path, cfg: Config) -> Parameters:
    """The weights of a run in its directory, as float32.

    Raises:
      RunError: they are not there, or damaged.
    """
    exported = directory / store.WEIGHTS
    if exported.exists():
        return read_exported(exported, cfg)
    if not (directory / store.CHECKPOINTS).is_dir():
        raise store.RunError(f"{directory} has no weights: train that run again with force=true")
    with Checkpoints(directory / store.CHECKPOINTS) as checkpoints:
        return evaluated_parameters(checkpoints.restore(cfg))


def read_exported(path: Path, cfg: Config) -> Parameters:
    """The weights in a safetensors file, as float32."""
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: np.float32(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise store.RunError(f"{path}: cannot be used ({error}); export it again") from error
    shapes = state_shape(cfg).parameters
    expected = {name: leaf.shape for name, leaf in named(shapes)}
    if {name: array.shape for name, array in found.items()} != expected:
        raise store.RunError(f"{path}: its weights are not those of its configuration")
    return jax.tree.unflatten(jax.tree.structure(shapes), [found[name] for name in expected])


def named(parameters: Parameters) -> list[tuple[str, Any]]:
    """Each weight with its path: `encoder.head.kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]


def exported(parameters: Parameters, cfg: Config, *, dtype: str) -> bytes:
    """Weights as a safetensors file: an array per weight, named by its path, and the configuration.

    A kernel is [inputs, outputs], or [height, width, inputs, outputs] of a convolution.
    """
    return save(
        {name: np.asarray(array, dtype) for name, array in named(parameters)},
        metadata={"config": json.dumps(cfg.to_dict())},
    )
