"""The words of the command line, before Hydra composes a configuration from them.

What its grammar cannot read is taken as text, and what it would take otherwise than it was meant is
refused.
"""

import itertools
import os
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException

from vibx.choices import one_of, require
from vibx.config.conversion import directory
from vibx.errors import ConfigError

CONDITIONS = ("runs", "attack.transfer_from")  # key=value pairs, joined by commas
# Where Hydra would write before a configuration is checked, and nothing of ours goes.
UNUSED = ("hydra", "hydra.run", "hydra.run.dir", "hydra.output_subdir")


def readable(word: str, *, sweeps: bool) -> str:
    """A word as Hydra can read it: a value that is no number, list or name is text, in quotes.

    So are the conditions of `runs`, and where the command has no `sweeps` parts of run_ids too. A
    path's ~ is the home directory, here already for launchers that write below `root`.
    """
    key, equals, value = word.partition("=")
    if key == "root" and value.startswith("~"):
        value = os.path.expanduser(value)
        word = f"{key}={value}"
    several = "=" in value or ("," in value and not sweeps)
    conditions = key in CONDITIONS and several and value[0] not in "\"'"
    if not equals or not key or (not conditions and parsed(word)):
        return word
    for quote in ("'" if '"' in value else '"', '"'):
        escaped = value.replace(quote, f"\\{quote}")
        if parsed(quoted := f"{key}={quote}{escaped}{quote}"):
            return quoted
    return word


def parsed(word: str) -> Override | None:
    """A word as Hydra understands it; None where it does not."""
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
    except OverrideParseException:
        return None
    return override


def check(words: Sequence[str], *, command: str, sweep: bool) -> list[str]:
    """What to say of words that Hydra would carry out in silence, a line each.

    Args:
      words: as `readable` made them.
      command: that they are for.
      sweep: whether it was asked for one.

    Raises:
      ConfigError: a word that is no override, or that asks for something else than it seems to.
    """
    latest: dict[str, str] = {}
    remarks = []
    for word in words:
        override = parsed(word)
        if override is None or not override.key_or_group:
            raise ConfigError(f"{word}: cannot be read; what is changed is written key=value")
        value, key = word.partition("=")[2], override.get_key_element().lstrip("+~")
        if key == "effort":
            raise ConfigError(f"{word}: it follows from scale and attack")
        if key in UNUSED:
            raise ConfigError(f"{word}: Hydra's own directory is unused; root= is where records go")
        choices, (group, _, below) = choices_of(key, command), key.partition("/")
        if choices and below and group != "hydra":
            raise ConfigError(f"{word}: is written {group}={below}/{value}")
        allowed = "one that is there" if key.startswith("hydra/") else one_of(choices)
        require(not (choices and value.lower() == "null"), key, value, allowed)
        several = override.is_sweep_override()
        if key == "experiment":
            one = not several and isinstance(override.value(), str)
            require(one, key, value, f"one: it is a sweep of its own; vibx {command} for each")
        if several and not sweep:
            raise ConfigError(
                f"{word}: several values are a sweep, vibx {command} -m; a text with a comma needs "
                f"quotes: {key}='\"...\"'"
            )
        if key.startswith("hydra.launcher") and not sweep:
            remarks.append(f"{word} has no effect: one run is not a sweep")
        if key in latest:
            remarks.append(f"{key} is given twice: {word} counts, not {latest[key]}")
        latest[key] = word
    return list(dict.fromkeys(remarks))


def choices_of(group: str, command: str) -> list[str]:
    """The names of a group's choices, `k2/fast` of one in a directory; none of another key."""
    place = directory(command) / group
    files = [file.relative_to(place).with_suffix("") for file in place.rglob("*.yaml")]
    return sorted(file.as_posix() for file in files)


def jobs_of(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each job of a sweep: every combination of the values.

    Raises:
      ConfigError: there is none.
    """
    values: dict[str, list[str]] = {}  # a key that comes later, as on the command line, counts
    for override in overrides:
        key = override.get_key_element()
        values[key] = values_of(override)
        if not values[key]:
            raise ConfigError(f"{override.input_line}: a sweep over no values")
    return [list(job) for job in itertools.product(*values.values())]


def values_of(override: Override) -> list[str]:
    """The overrides that a swept key stands for, one per value."""
    key = override.get_key_element()
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [f"{key}={override.get_value_element_as_str()}"]


def keys_of(words: Sequence[str]) -> set[str]:
    """The keys and groups that overrides change."""
    return {word.lstrip("+~").partition("=")[0] for word in words}
