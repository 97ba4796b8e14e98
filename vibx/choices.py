"""What a choice of the configuration is: a frozen dataclass, registered for a group and names.

A field says once what becomes of it, and nothing else lists it:

- `traced`: a number that a compiled program takes as an argument, so that a change of it compiles
  nothing.
- no mark: compiled in; runs that differ in it are different programs.
- `apart`: of no concern to a compiled program (a name, a seed).

`later=True` marks a key that came when records without it already existed. At its default it
means what those did, and is left out of a run's identity. A field with `compare=False` is never
part of it.

Imports no jax.
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar

from vibx.errors import ConfigError

Schema = TypeVar("Schema", bound=type)
Found = TypeVar("Found", bound=Callable[..., Any])
Result = TypeVar("Result", covariant=True)

ANY_NAME = ""  # a schema for every name that has none of its own
GROUPS: dict[str, dict[str, type]] = {}


def choice(group: str, *names: str) -> Callable[[Schema], Schema]:
    """Register a schema for names in a group, or for all names that have none of their own."""

    def register(schema: Schema) -> Schema:
        GROUPS.setdefault(group, {}).update(dict.fromkeys(names or (ANY_NAME,), schema))
        return schema

    return register


def schema_of(group: str, name: str) -> type:
    """The schema of a choice.

    Raises:
      ConfigError: there is none.
    """
    schemas = GROUPS[group]
    require(name in schemas or ANY_NAME in schemas, group, name, one_of(schemas))
    return schemas.get(name) or schemas[ANY_NAME]


def traced(*, later: bool = False, **options: Any) -> Any:
    """A field whose number, or whose own traced fields, a compiled program takes as arguments."""
    return dataclasses.field(**options, metadata={"role": "traced", "later": later})


def apart(*, later: bool = False, **options: Any) -> Any:
    """A field that no compiled program sees."""
    if "default" in options:  # by a factory: a program would see the attribute of the class
        default = options.pop("default")
        options["default_factory"] = lambda: default
    return dataclasses.field(**options, metadata={"role": "apart", "later": later})


def compiled(*, later: bool = False, **options: Any) -> Any:
    """A field whose value is compiled in, as without any mark."""
    return dataclasses.field(**options, metadata={"later": later})


def names_of(schema: type, *, role: str | None) -> list[str]:
    """Names of a schema's fields of one role; None: the compiled ones."""
    return [f.name for f in dataclasses.fields(schema) if f.metadata.get("role") == role]


def identity(configuration: Any) -> dict[str, Any]:
    """What decides a result, as nested values: without later keys at their defaults."""
    content = {}
    for field in dataclasses.fields(configuration):
        value = getattr(configuration, field.name)
        if not field.compare or (field.metadata.get("later") and value == default_of(field)):
            continue
        content[field.name] = identity(value) if dataclasses.is_dataclass(value) else value
    return content


def default_of(field: dataclasses.Field) -> Any:
    """A field's default."""
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


class found_by_schema(Generic[Result]):  # noqa: N801  (a decorator)
    """Declare a function whose code is found by the exact type of its first argument, a schema.

    `functools.singledispatch` would carry out a schema that extends another as that one, and
    ignore its own keys in silence.
    """

    def __init__(self, declaration: Callable[..., Result]):
        functools.update_wrapper(self, declaration)
        self.name = f"{declaration.__module__}.{declaration.__qualname__}"
        self.registry: dict[type, Callable[..., Result]] = {}
        self.families: dict[type, Callable[..., Result]] = {}

    def register(self, *schemas: type) -> Callable[[Found], Found]:
        """Register a function, or a class that is called as one, for schemas."""

        def register(function: Found) -> Found:
            self.registry.update(dict.fromkeys(schemas, function))
            return function

        return register

    def register_family(self, base: type) -> Callable[[Found], Found]:
        """Register a function for all schemas that extend a base and have no code of their own."""

        def register(function: Found) -> Found:
            self.families[base] = function
            return function

        return register

    def __call__(self, schema: object, *args: Any, **options: Any) -> Result:
        """Call what is registered for the schema.

        Raises:
          ConfigError: nothing is.
        """
        kind = type(schema)
        bases = [base for base in kind.__mro__ if base in self.families]
        if kind in self.registry:
            return self.registry[kind](schema, *args, **options)
        if bases:
            return self.families[bases[0]](schema, *args, **options)
        groups = [group for group, schemas in GROUPS.items() if kind in schemas.values()]
        name = getattr(schema, "name", kind.__name__)  # no name inside a compiled function
        raise ConfigError(
            f"{'='.join([*groups[:1], name])}: {kind.__name__} has a schema, but nothing that "
            f"carries it out is registered with {self.name}"
        )


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise `ConfigError` unless the value of `key` satisfies `condition`."""
    if not condition:
        raise ConfigError(f"{key}={value}: must be {allowed}")


def refuse_unknown(given: Collection[Any], known: Collection[str], *, prefix: str = "") -> None:
    """Raise `ConfigError` for a key that is not known, with the one that was probably meant."""
    for key in map(str, given):
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"no such key: {prefix}{key}{hint}")


def one_of(names: Collection[str]) -> str:
    """Spell out the allowed values of a key."""
    return "one of " + ", ".join(names)
