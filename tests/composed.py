"""Configurations as `vibx train` composes them, and every choice that conf/train has."""

import dataclasses
import functools

from hydra import compose, initialize_config_dir

from vibx import config
from vibx.choices import GROUPS, schema_of

CONF = config.directory("train")
TRAINING_GROUPS = [group for group in GROUPS if group in config.field_names(config.Config)]


def files(group):
    """The names of the choices of a group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@functools.cache
def parsed(*overrides):
    """The run and its execution, without looking at its data."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return config.parse(compose("train", overrides=list(overrides)))


def with_choice(choice):
    """Overrides that make a choice, and one of another group where it makes no sense alone."""
    group, name = choice.split("=")
    if group == "bottleneck" and not schema_of(group, name).stochastic:
        return [choice, *(f"objective={name}" for name in deterministic_objectives()[:1])]
    return [choice]


def deterministic_objectives():
    return [name for name in files("objective") if not schema_of("objective", name).stochastic]


def shrunk(cfg):
    """A configuration with layers of few units."""
    return dataclasses.replace(
        cfg, **{group: few_units(getattr(cfg, group)) for group in ("encoder", "decoder")}
    )


def few_units(schema):
    sizes = {
        field.name: tuple(3 for _ in getattr(schema, field.name))
        for field in dataclasses.fields(schema)
        if isinstance(getattr(schema, field.name), tuple)
    }
    return dataclasses.replace(schema, **sizes)
