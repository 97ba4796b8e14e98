"""The paper's table and figures, and the tables around them: a module for each.

Nothing lists them: a module here defines `DRAWING`, and `vibx figures` draws it.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Files = dict[str, bytes]  # contents by the file's name


class Source(NamedTuple):
    """What is drawn from: the runs, or the attacks, of each experiment at one scale.

    `missing` are the configurations that have no record.
    """

    scale: str
    found: dict[str, list[Any]]
    missing: Mapping[str, list[Any]] = MappingProxyType({})


class Drawing(NamedTuple):
    """A table or figure.

    `draw` makes its files, all of them before any is written, from a `Source` at the largest scale
    at which all `experiments` are complete. Where each has a scale of its own (`own_scales`), it
    gets a source for each of them. Where scales are `compared`, it gets a source for each of those
    that there are, at least two. A `partial` drawing gets a source for each scale at which there
    is anything, complete or not. Attacks are looked up on the runs of the experiments `attacked`.
    """

    title: str
    experiments: tuple[str, ...]
    draw: Callable[..., Files]
    attacked: tuple[str, ...] = ()
    own_scales: bool = False
    compared: tuple[str, ...] = ()
    partial: bool = False


def find() -> list[Drawing]:
    """The drawings of all modules in this package, by the modules' names."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return [importlib.import_module(f"{__name__}.{name}").DRAWING for name in names]
