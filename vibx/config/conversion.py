"""From OmegaConf nodes to schemas: the only place that reads them."""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vibx.choices import GROUPS, one_of, refuse_unknown, require, schema_of
from vibx.errors import ConfigError


def directory(command: str) -> Path:
    """The configuration of a command: in an installed package's `conf/`, else the checkout's."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return (inside if inside.is_dir() else package.parent / "conf") / command


def chosen(group: str, node: Any) -> Any:
    """Convert a group's node by the schema of the choice that its `name` says.

    Raises:
      ConfigError: no such choice, unknown key, wrong type or value out of range.
    """
    names = one_of(list(filter(None, GROUPS[group])) or ["its yaml files"])
    require(isinstance(node, DictConfig), group, node, f"a choice: {names}")
    schema = schema_of(group, str(node.get("name")))
    refuse_unknown(node, field_names(schema), prefix=f"{group}.")
    return typed(schema, node, prefix=f"{group}.")


def typed(schema: type, node: DictConfig, prefix: str = "") -> Any:
    """Convert the schema's keys of a node, refusing what is missing or of another type."""
    try:
        keys = [name for name in field_names(schema) if name in node]
        values = OmegaConf.masked_copy(node, keys)
        return OmegaConf.to_object(OmegaConf.merge(structured(schema), values))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{prefix}{error.full_key}: {str(error).splitlines()[0]}") from error
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error


structured = functools.cache(OmegaConf.structured)  # slow; a merge copies it


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
