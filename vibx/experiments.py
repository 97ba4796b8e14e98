"""The paper's experiments: `conf/experiment/*.yaml` expanded into runs, and their records.

Imports no jax: tables and figures get their records here.
"""

import contextlib
import copy
import functools
import itertools
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from vibx import config, runs
from vibx.config import Config
from vibx.runs import StoredRun

SCALES = ("paper", "fast", "smoke")  # the largest first


def expand(experiment: str, *, scale: str) -> list[Config]:
    """The runs of an experiment: every combination of its grid, in the grid's order."""
    chosen = [f"experiment={experiment}", f"scale={scale}"]
    with composing():
        compose_once = functools.cache(lambda *groups: compose("train", [*chosen, *groups]))
        grid = compose("train", chosen, return_hydra_config=True).hydra.sweeper.params
        parse = OverridesParser.create().parse_override
        axes = [values(parse(f"{key}={swept}")) for key, swept in grid.items()]
        cfgs = []
        for combination in itertools.product(*axes):
            groups = [text for text in combination if text.partition("=")[0] in config.GROUPS]
            cfg = copy.deepcopy(compose_once(*groups))
            for number in map(parse, set(combination) - set(groups)):
                OmegaConf.update(cfg, number.key_or_group, number.value())
            cfgs.append(config.parse(cfg)[0])
        return cfgs


def composing() -> AbstractContextManager[object]:
    """Where `compose` works: inside a command it does already."""
    if GlobalHydra.instance().is_initialized():
        return contextlib.nullcontext()
    return initialize_config_dir(str(config.directory()), version_base="1.3")


def values(swept: Override) -> list[str]:
    """The overrides that a swept key stands for, one per value."""
    key = swept.key_or_group
    if swept.is_sweep_override():
        return [f"{key}={value}" for value in swept.sweep_string_iterator()]
    return [f"{key}={swept.get_value_element_as_str()}"]


def read_store(root: Path) -> dict[Config, StoredRun]:
    """The finished runs of a store by their configuration.

    Raises:
      RunError: a record cannot be used, or two directories hold the same run.
    """
    store: dict[Config, StoredRun] = {}
    for run in runs.read_runs(root):
        cfg = config.parse_config(run.record["config"])
        if cfg in store:
            raise runs.RunError(
                f"{run.directory} and {store[cfg].directory} hold the same run; remove one"
            )
        store[cfg] = run
    return store


class Collected(NamedTuple):
    """The runs of an experiment that a store has, in the grid's order, and those that it lacks."""

    runs: list[StoredRun]
    missing: list[Config]


def collect(experiment: str, *, scale: str, store: dict[Config, StoredRun]) -> Collected:
    """Look an experiment's runs up in a store, by their whole configuration."""
    wanted = expand(experiment, scale=scale)
    return Collected(
        [store[cfg] for cfg in wanted if cfg in store], [cfg for cfg in wanted if cfg not in store]
    )
