"""The paper's experiments: `conf/*/experiment/` expanded into runs or attacks on them.

Imports no jax: tables and figures get their records here.
"""

import contextlib
import copy
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from vibx import config, store
from vibx.config import Config
from vibx.robustness.config import AttackConfig, parse_attack
from vibx.store import StoredAttack, StoredRun

Wanted = TypeVar("Wanted")
Found = TypeVar("Found")

SCALES = ("paper", "fast", "smoke")  # the largest first


def expand(experiment: str, *, scale: str) -> list[Config]:
    """The runs of an experiment: every combination of its grid, in the grid's order."""
    chosen = [f"experiment={experiment}", f"scale={scale}"]
    return [config.parse(cfg)[0] for cfg in combinations("train", chosen)]


def expand_attacks(experiment: str, *, scale: str) -> list[tuple[str, AttackConfig]]:
    """The attacks of an experiment in the grid's order: which runs, and with what."""
    chosen = [f"experiment={experiment}", f"scale={scale}"]
    parsed = [parse_attack(cfg) for cfg in combinations("attack", chosen)]
    return [(execution.runs, attack) for attack, execution in parsed]


def combinations(command: str, chosen: list[str]) -> list[DictConfig]:
    """A command's configurations, one for every combination of the grid of its experiment."""
    with composing(command):
        whole = compose(command, chosen, return_hydra_config=True)
        grid = whole.hydra.sweeper.params
        plain = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
        compose_once = functools.cache(
            lambda *groups: compose(command, [*chosen, *groups]) if groups else plain
        )
        parse = OverridesParser.create().parse_override
        axes = [values(parse(f"{key}={swept}")) for key, swept in grid.items()]
        cfgs = []
        for combination in itertools.product(*axes):
            groups = [text for text in combination if text.partition("=")[0] in config.GROUPS]
            cfg = copy.deepcopy(compose_once(*groups))
            for number in map(parse, set(combination) - set(groups)):
                OmegaConf.update(cfg, number.key_or_group, number.value())
            cfgs.append(cfg)
        return cfgs


@contextlib.contextmanager
def composing(command: str) -> Iterator[None]:
    """Let `compose` find a command's configuration; one that is running gets its own back."""
    application = GlobalHydra.instance()
    running, application.hydra = application.hydra, None
    try:
        with initialize_config_dir(str(config.directory(command)), version_base="1.3"):
            yield
    finally:
        application.hydra = running


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
    found: dict[Config, StoredRun] = {}
    for run in store.read_runs(root):
        cfg = config.parse_config(run.record["config"])
        if cfg in found:
            raise store.RunError(
                f"{run.directory} and {found[cfg].directory} hold the same run; remove one"
            )
        found[cfg] = run
    return found


class Collected(NamedTuple, Generic[Wanted, Found]):
    """What a store has of an experiment, in the grid's order, and what it lacks."""

    found: list[Found]
    missing: list[Wanted]


Runs = Collected[Config, StoredRun]
Attacks = Collected[AttackConfig, StoredAttack]


def collect(experiment: str, *, scale: str, found: dict[Config, StoredRun]) -> Runs:
    """Look an experiment's runs up in a store, by their whole configuration."""
    wanted = expand(experiment, scale=scale)
    return Collected(
        [found[cfg] for cfg in wanted if cfg in found], [cfg for cfg in wanted if cfg not in found]
    )


def collect_attacks(experiment: str, *, scale: str, stored: list[StoredRun]) -> Attacks:
    """Look an experiment's attacks up in the directories of runs, by their whole configuration."""
    collected: Attacks = Collected([], [])
    for conditions, attack in expand_attacks(experiment, scale=scale):
        attacked = store.among(stored, conditions)
        finished = [run for run in attacked if store.is_attacked(run, attack.name)]
        collected.found.extend(store.read_attack(run, attack.name) for run in finished)
        collected.missing.extend([attack] * (max(len(attacked), 1) - len(finished)))
    return collected
