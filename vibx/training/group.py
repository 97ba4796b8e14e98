"""Runs trained together: trees with a leading run axis, sharded over the local devices.

A group of one is a run alone, without the axis.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

EACH_RUN = PartitionSpec("runs")
ALL_RUNS = PartitionSpec()

Tree = TypeVar("Tree")


def run_mesh() -> Mesh:
    """All local devices along the run axis."""
    return Mesh(jax.local_devices(), "runs")


def padded(runs: Sequence[Tree]) -> list[Tree]:
    """A group whose size the number of devices divides: the last run is repeated."""
    short = 0 if len(runs) == 1 else -len(runs) % jax.local_device_count()
    return [*runs, *runs[-1:] * short]


def stacked(trees: Sequence[Tree]) -> Tree:
    """The trees of a group's runs as one, each run on its device."""
    if len(trees) == 1:
        return trees[0]
    tree = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return jax.device_put(tree, NamedSharding(run_mesh(), EACH_RUN))


def shared(tree: Tree, *, runs: int) -> Tree:
    """A tree that all runs of a group read, on all their devices."""
    return tree if runs == 1 else jax.device_put(tree, NamedSharding(run_mesh(), ALL_RUNS))


def one_of(tree: Tree, run: int, *, runs: int) -> Tree:
    """The tree of one run, on the host if there are others."""
    return tree if runs == 1 else jax.tree.map(lambda leaf: jax.device_get(leaf[run]), tree)
