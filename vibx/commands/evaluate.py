"""`vibx evaluate`: evaluate finished runs with another number of samples."""

from pathlib import Path

from omegaconf import DictConfig

from vibx import store
from vibx.choices import require
from vibx.commands import end, named_in
from vibx.display import RESULTS
from vibx.files import lock
from vibx.report.screen import run_table


def main(cfg: DictConfig) -> None:
    """Evaluate the chosen runs, print their table and keep each result beside the record."""
    samples = cfg.mc_samples
    require(isinstance(samples, int) and samples >= 1, "mc_samples", samples, "at least 1")
    chosen, problems = store.select(Path(cfg.root), cfg.runs)
    for run in chosen:
        store.require_weights(run)

    from vibx.training.run import evaluate  # imports jax

    evaluated = []
    for run in chosen:
        with named_in(problems), lock(run.directory, work="evaluated", shared=True):
            sections = evaluate(run, mc_samples=samples)
            store.write_evaluation(run, sections, mc_samples=samples)
            evaluated.append(run.record | sections)
    if evaluated:
        RESULTS.print(run_table(evaluated))
    end(problems)
