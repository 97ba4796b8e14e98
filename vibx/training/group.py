"""Runs trained together: trees with a leading run axis, sharded over the local devices.

A group of one is a run alone, without the axis.
"""

from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

EACH_RUN = PartitionSpec("runs")
ALL_RUNS = PartitionSpec()

Tree = TypeVar("Tree")


def run_mesh() -> Mesh:
    """All local devices along the run axis."""
    return Mesh(jax.local_devices(), "runs")


def axis_length(runs: int) -> int:
    """Length of the run axis for so many runs: the devices have equally many."""
    return 1 if runs == 1 else runs + -runs % jax.local_device_count()


def padded(trees: list[Tree], *, length: int) -> list[Tree]:
    """As many trees as the run axis is long: spare ones repeat the last run's."""
    return trees + trees[-1:] * (length - len(trees))


def stacked(trees: Sequence[Tree]) -> Tree:
    """The trees of a group's runs as one, each run on its device."""
    if len(trees) == 1:
        return trees[0]
    on_host = jax.device_get(trees)  # together they may not fit on one device
    tree = jax.tree.map(lambda *leaves: np.stack(leaves), *on_host)
    return jax.device_put(tree, NamedSharding(run_mesh(), EACH_RUN))


def stacked_shape(tree: Tree, *, runs: int) -> Tree:
    """The shapes of `stacked` trees of runs that each have these shapes."""
    if runs == 1:
        return tree
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((runs, *s.shape), s.dtype), tree)


def replicated(tree: Tree, *, runs: int) -> Tree:
    """A tree that all runs of a group read, on all their devices."""
    return tree if runs == 1 else jax.device_put(tree, NamedSharding(run_mesh(), ALL_RUNS))


def unstacked(tree: Tree, run: int, *, runs: int) -> Tree:
    """The tree of one run, on the host if there are others."""
    return tree if runs == 1 else jax.tree.map(lambda leaf: jax.device_get(leaf[run]), tree)
