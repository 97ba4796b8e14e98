"""`vibx runs`: list the runs of a store."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vibx import config, store
from vibx.display import RESULTS
from vibx.report.screen import run_table


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The keys of conf/runs."""

    root: str
    runs: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", config.path("root", self.root))


def main(cfg: DictConfig) -> None:
    """Print a table of the store's runs.

    Raises:
      RunError: conditions are given, and no run satisfies them.
    """
    given = config.settings(Listing, cfg)
    root = Path(given.root)
    records = store.matching(store.read_records(root), given.runs)
    if given.runs and not records:
        raise store.RunError(f"runs={given.runs}: no finished run in {root} matches")
    unfinished = {} if given.runs else store.unfinished(root)
    RESULTS.print(run_table(records, unfinished))
    RESULTS.print(f"{len(records)} finished, {len(unfinished)} unfinished in {root}")
