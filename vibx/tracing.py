"""Schemas as arguments of compiled functions: traced numbers are leaves, the rest is structure.

A jitted function takes the configuration itself. Two configurations of equal structure, see
`program`, share its compilation.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from vibx.choices import names_of

Configuration = TypeVar("Configuration")
Result = TypeVar("Result")


def traceable(configuration: Configuration) -> Configuration:
    """A configuration with arrays in place of its traced numbers, as jitted functions take it.

    Inside a compiled function it has no fields that are `apart`: reading one is an AttributeError.
    """
    register_all(configuration)
    return jax.tree.map(jnp.array, configuration)  # not asarray: a weak type is compiled apart


def program(configuration: Any) -> jax.tree_util.PyTreeDef:
    """What is compiled in: the configuration without its traced numbers. Hashable."""
    register_all(configuration)
    return jax.tree.structure(configuration)


def once_per_program(function: Callable[..., Result]) -> Callable[..., Result]:
    """A function of a configuration, called once for all configurations of a program."""
    results: dict[tuple, Result] = {}

    @functools.wraps(function)
    def cached(configuration: Any, **options: Hashable) -> Result:
        which = (program(configuration), *options.items())
        if which not in results:
            results[which] = function(configuration, **options)
        return results[which]

    return cached


def register_all(configuration: Any) -> None:
    """Make pytrees of a configuration's schema and of those in its traced fields."""
    if dataclasses.is_dataclass(configuration):
        schema: Any = type(configuration)
        register(schema)
        for name in names_of(schema, role="traced"):
            register_all(getattr(configuration, name))


@functools.cache
def register(schema: type) -> None:
    """Make a pytree of a schema.

    Besides compiled fields, properties that the schema names in `COMPILED` are kept.
    """
    children = names_of(schema, role="traced")
    static = [*names_of(schema, role=None), *getattr(schema, "COMPILED", ())]

    def flatten(configuration: Any) -> tuple[tuple, tuple]:
        return (
            tuple(getattr(configuration, name) for name in children),
            tuple(getattr(configuration, name) for name in static),
        )

    def unflatten(values: tuple, leaves: tuple) -> Any:
        # Not by __init__: it validates, and leaves may be tracers.
        configuration: Any = object.__new__(schema)
        vars(configuration).update(zip(children, leaves, strict=True))
        vars(configuration).update(zip(static, values, strict=True))
        return configuration

    jax.tree_util.register_pytree_node(schema, flatten, unflatten)
