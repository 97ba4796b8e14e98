"""The weights that stand for a finished run: from its checkpoint, or exported as safetensors."""

import json
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load, save

from vibx import config, store
from vibx.config import Config
from vibx.files import FILES, read_listed
from vibx.training.checkpoint import Checkpoints
from vibx.training.state import Parameters, evaluated_parameters, state_shape


def read_weights(run: store.StoredRun) -> Parameters:
    """The weights of a finished run, as float32.

    Raises:
      RunError: they are not there, or (DamagedError) not as they were written.
    """
    cfg = config.parse_config(run.record["config"])
    if (run.directory / store.WEIGHTS).exists():
        return read_exported(run, cfg)
    store.require_weights(run)
    saved = Checkpoints(run.directory, cfg).read(cfg.epochs)
    assert saved.state is not None
    return evaluated_parameters(saved.state)


def read_exported(run: store.StoredRun, cfg: Config) -> Parameters:
    """The weights in a safetensors file, as float32."""
    listed = run.record[FILES]
    arrays = load(read_listed(run.directory, store.WEIGHTS, listed, remedy=store.WEIGHTS_REMEDY))
    found = {name: np.float32(array) for name, array in arrays.items()}
    shapes = state_shape(cfg).parameters
    expected = {name: leaf.shape for name, leaf in named(shapes)}
    if {name: array.shape for name, array in found.items()} != expected:
        path = run.directory / store.WEIGHTS
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
