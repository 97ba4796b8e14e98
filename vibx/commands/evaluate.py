"""`vibx evaluate`: evaluate finished runs with another number of samples."""

from pathlib import Path

from omegaconf import DictConfig

from vibx import store
from vibx.choices import require
from vibx.display import RESULTS
from vibx.report.screen import run_table


def main(cfg: DictConfig) -> None:
    """Evaluate the chosen runs, print their table and keep each result beside the record."""
    samples = cfg.mc_samples
    require(isinstance(samples, int) and samples >= 1, "mc_samples", samples, "at least 1")
    chosen = store.select(Path(cfg.root), cfg.runs)

    from vibx.training.run import evaluate  # imports jax

    evaluated = []
    for directory, record in chosen:
        sections = evaluate(record["config"], directory, mc_samples=samples)
        store.write_json(directory / f"evaluation-mc{samples}.json", sections)
        evaluated.append(record | sections)
    RESULTS.print(run_table(evaluated))
