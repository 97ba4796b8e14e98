"""`vibx runs`: list the runs of a store."""

from pathlib import Path

from omegaconf import DictConfig

from vibx import store
from vibx.display import RESULTS
from vibx.report.screen import run_table


def main(cfg: DictConfig) -> None:
    """Print a table of the store's runs."""
    root = Path(cfg.root)
    records = store.matching(store.read_records(root), cfg.runs)
    unfinished = {} if cfg.runs else store.unfinished(root)
    RESULTS.print(run_table(records, unfinished))
    RESULTS.print(f"{len(records)} finished, {len(unfinished)} unfinished in {root}")
