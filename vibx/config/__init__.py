"""What can be configured, its validation, and a run's name. Imports no jax."""

from vibx.config.conversion import (
    chosen,
    digest,
    directory,
    expand_paths,
    field_names,
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
    "expand_paths",
    "field_names",
    "parse",
    "parse_config",
    "plain_values",
    "resolved",
    "settings",
    "typed",
]
