"""`vibx evaluate`: evaluate finished runs with another number of samples."""

from pathlib import Path

from omegaconf import DictConfig

from vibx import runs
from vibx.config import require
from vibx.display import RESULTS, run_table


def main(cfg: DictConfig) -> None:
    """Evaluate the chosen runs, print their table and keep each result beside the record."""
    root = Path(cfg.root)
    samples = cfg.mc_samples
    require(isinstance(samples, int) and samples >= 1, "mc_samples", samples, "at least 1")
    records = runs.matching(runs.read_records(root), cfg.runs)
    if not records:
        raise runs.RunError(f"runs={cfg.runs}: no finished run in {root} matches; see vibx runs")

    from vibx.training.run import evaluate  # imports jax

    evaluated = []
    for record in records:
        sections = evaluate(record["config"], root / record["run_id"], mc_samples=samples)
        runs.write_json(root / record["run_id"] / f"evaluation-mc{samples}.json", sections)
        evaluated.append(record | sections)
    RESULTS.print(run_table(evaluated))
