"""From OmegaConf nodes to schemas: the only place that reads them."""

import ctypes
import dataclasses
import hashlib
import itertools
import json
import math
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vibx.choices import GROUPS, one_of, refuse_unknown, require, schema_of
from vibx.errors import ConfigError

MISSING = "???"  # OmegaConf's mark of a value that has to be given
SMALLEST = 2.0**-126  # of float32; what is below is 0 to a program
LARGEST_INDEX = 2**31 - 1  # programs count in int32


def directory(command: str) -> Path:
    """The configuration of a command: in an installed package's `conf/`, else the checkout's."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return (inside if inside.is_dir() else package.parent / "conf") / command


def resolved(cfg: DictConfig, *schemas: type) -> dict[str, Any]:
    """The keys of schemas in a composed configuration, as plain values, without interpolations.

    Raises:
      ConfigError: an unknown key beside Hydra's own, or an interpolation that leads nowhere.
    """
    refuse_unknown(cfg, {"hydra", *itertools.chain(*map(field_names, schemas))})
    content = {}
    for key in map(str, cfg):
        if key != "hydra":
            try:
                value = MISSING if OmegaConf.is_missing(cfg, key) else cfg[key]
                node = OmegaConf.is_config(value)
                content[key] = OmegaConf.to_container(value, resolve=True) if node else value
            except OmegaConfBaseException as error:
                raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    return content


def settings(schema: type, cfg: DictConfig) -> Any:
    """A command's configuration as its schema.

    Raises:
      ConfigError: unknown key, wrong type or value out of range.
    """
    return typed(schema, resolved(cfg, schema))


def chosen(group: str, values: Any) -> Any:
    """Convert a group's values by the schema of the choice that its `name` says.

    Raises:
      ConfigError: no such choice, unknown key, wrong type or value out of range.
    """
    names = one_of(list(filter(None, GROUPS[group])) or ["its yaml files"])
    require(isinstance(values, dict), group, shown(values), f"a choice: {names}")
    schema = schema_of(group, str(values.get("name")))
    refuse_unknown(values, field_names(schema), prefix=f"{group}.")
    return typed(schema, values, prefix=f"{group}.")


def typed(schema: type, values: dict[str, Any], prefix: str = "") -> Any:
    """Convert the schema's keys of a configuration; a key with a default can be left out.

    Raises:
      ConfigError: a value is missing, of another type, or out of range: as it is, or as the
        float32 that is computed with.
    """
    hints = typing.get_type_hints(schema)
    found = {}
    for field in dataclasses.fields(schema):
        key, hint = field.name, hints[field.name]
        value = values.get(key, MISSING)
        if value != MISSING:
            require(fits(value, hint), f"{prefix}{key}", shown(value), type_name(hint))
            found[key] = converted(value, hint)
        elif key in values or field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{prefix}{key}: must be given, {type_name(hint)}")
    try:
        return checked_as_float32(schema(**found))
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of a composed configuration is of a field's type, or can be read as it."""
    if isinstance(hint, types.UnionType):
        return any(fits(value, option) for option in typing.get_args(hint))
    if hint is types.NoneType:
        return value is None
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return isinstance(value, list) and all(fits(v, item) for v in value)
    if value is None or isinstance(value, list | dict):
        return False
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return not isinstance(value, bool) and reads_as(hint, value)
    return hint is str


def converted(value: Any, hint: Any) -> Any:
    """A value that `fits` a field's type, as that type."""
    if isinstance(hint, types.UnionType):
        return converted(value, next(o for o in typing.get_args(hint) if fits(value, o)))
    if hint is types.NoneType:
        return None
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return tuple(converted(v, item) for v in value)
    return hint(value)


def reads_as(number: Callable[[Any], Any], value: Any) -> bool:
    """Whether a value is a number, or a text that is one."""
    if isinstance(value, float) and number is int:
        return False
    try:
        number(value)
    except (ValueError, OverflowError):
        return False
    return True


def type_name(hint: Any) -> str:
    """A field's type in words."""
    if isinstance(hint, types.UnionType):
        return ", or ".join(type_name(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"a list, as [1, 2], each {type_name(typing.get_args(hint)[0])}"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return "null" if hint is types.NoneType else names.get(hint, str(hint))


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def checked_as_float32(configuration: Any) -> Any:
    """A schema whose numbers are also in range as float32 and int32; -0.0 becomes 0.0.

    Raises:
      ConfigError: one is not.
    """
    values = {f.name: getattr(configuration, f.name) for f in dataclasses.fields(configuration)}
    for key, value in values.items():
        for number in value if isinstance(value, tuple) else [value]:
            if isinstance(number, int) and key != "seed":
                require(abs(number) <= LARGEST_INDEX, key, value, f"at most {LARGEST_INDEX}")
    numbers = {key: value for key, value in values.items() if isinstance(value, float)}
    rounded = {key: ctypes.c_float(value).value for key, value in numbers.items()}
    for key, value in numbers.items():
        lost = 0 < abs(value) < SMALLEST or math.isinf(rounded[key])
        require(not lost, key, value, f"0, or between {SMALLEST:.3g} and 3.4e+38: it is a float32")
    if any(rounded[key] != value for key, value in numbers.items()):
        try:
            dataclasses.replace(configuration, **rounded)
        except ConfigError as error:
            raise ConfigError(f"{error}, also when rounded to float32") from error
    if any(value == 0 and math.copysign(1, value) < 0 for value in numbers.values()):
        zeros = {key: value + 0.0 for key, value in numbers.items()}
        return dataclasses.replace(configuration, **zeros)
    return configuration


def expand_paths(configuration: Any, *keys: str) -> None:
    """Take a schema's paths as they were meant: not empty, and ~ is the home directory.

    Raises:
      ConfigError: one is empty.
    """
    for key in keys:
        value = getattr(configuration, key)
        require(bool(value.strip()), key, value, "a path")
        object.__setattr__(configuration, key, os.path.expanduser(value))


def field_names(schema: type) -> list[str]:
    """Names of a dataclass's fields."""
    return [field.name for field in dataclasses.fields(schema)]


def plain_values(configuration: Any) -> dict[str, Any]:
    """A dataclass as nested plain values, as they come back from JSON."""
    return json.loads(json.dumps(dataclasses.asdict(configuration)))


def digest(content: dict[str, Any]) -> str:
    """8 hex digits of the SHA-256 of plain values."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]
