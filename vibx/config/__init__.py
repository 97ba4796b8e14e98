"""What can be configured, its validation, and a run's name. Imports no jax."""

from vibx.config.conversion import (
    chosen,
    digest,
    directory,
    field_names,
    path,
    plain_values,
    resolved,
    settings,
    typed,
)
from vibx.config.run import Config, Execution, parse, parse_config

__all__ = [
    "Config",
    "Execution",
    "chosen",
    "digest",
    "directory",
    "field_names",
    "parse",
    "parse_config",
    "path",
    "plain_values",
    "resolved",
    "settings",
    "typed",
]
