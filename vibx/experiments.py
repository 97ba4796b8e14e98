"""The paper's experiments: `conf/experiment/*.yaml` expanded into runs, and their records.

Imports no jax: tables and figures get their records here.
"""

import itertools
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from vibx import config, runs
from vibx.config import Config
from vibx.errors import UserError
from vibx.runs import StoredRun

SCALES = ("paper", "fast", "smoke")  # the largest first


class MissingRunsError(UserError):
    """Runs of an experiment have no record; the message has the command that trains them."""


def expand(experiment: str, *, scale: str) -> list[Config]:
    """The runs of an experiment: every combination of its grid, in the grid's order."""
    chosen = [f"experiment={experiment}", f"scale={scale}"]
    with initialize_config_dir(str(config.directory()), version_base="1.3"):
        grid = compose("train", chosen, return_hydra_config=True).hydra.sweeper.params
        overrides = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in grid.items()])
        combinations = itertools.product(*map(choices, overrides))
        return [config.parse(compose("train", [*chosen, *c]))[0] for c in combinations]


def choices(override: Override) -> list[str]:
    """A swept key's overrides, one per value."""
    key = override.key_or_group
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [f"{key}={override.get_value_element_as_str()}"]


def read_store(root: Path) -> dict[Config, StoredRun]:
    """The finished runs of a store by their configuration.

    Raises:
      RunError: a record cannot be used, or two directories hold the same run.
    """
    store: dict[Config, StoredRun] = {}
    for record in runs.read_records(root):
        run = StoredRun(root / record["run_id"], record)
        cfg = config.parse_config(record["config"])
        if cfg in store:
            raise runs.RunError(
                f"{run.directory} and {store[cfg].directory} hold the same run; remove one"
            )
        store[cfg] = run
    return store


def collect(
    experiment: str, *, scale: str, store: dict[Config, StoredRun], root: Path
) -> list[StoredRun]:
    """The records of an experiment's runs, in the grid's order, all of them.

    Raises:
      MissingRunsError: some are not in the store.
    """
    wanted = expand(experiment, scale=scale)
    missing = [cfg.run_id for cfg in wanted if cfg not in store]
    if missing:
        raise MissingRunsError(
            f"{experiment} at scale={scale}: {len(missing)} of {len(wanted)} runs are missing in "
            f"{root} ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); train them: "
            f"vibx train experiment={experiment} scale={scale} root={root}"
        )
    return [store[cfg] for cfg in wanted]
