"""`vibx evaluate`: evaluate finished runs with another number of samples."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vibx import config, store
from vibx.choices import require
from vibx.commands import end, named_in
from vibx.display import RESULTS
from vibx.errors import going_through
from vibx.files import lock
from vibx.report.screen import run_table


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The keys of conf/evaluate."""

    root: str
    runs: str
    mc_samples: int

    def __post_init__(self) -> None:
        config.expand_paths(self, "root")
        require(self.mc_samples >= 1, "mc_samples", self.mc_samples, "at least 1")


def main(cfg: DictConfig) -> None:
    """Evaluate the chosen runs, print their table and keep each result beside the record."""
    given = config.settings(Evaluation, cfg)
    samples = given.mc_samples
    chosen, problems = store.select(Path(given.root), given.runs)
    for run in chosen:
        store.require_weights(run)

    from vibx.training.memory import require_memory  # imports jax
    from vibx.training.run import evaluate

    ready = []
    for run in chosen:
        with named_in(problems, run):
            trained = config.parse_config(run.record["config"])
            require_memory(dataclasses.replace(trained, mc_samples=samples))
            ready.append(run)
    evaluated: list[store.Record] = []
    for run in ready:
        held = lock(run.directory, work="evaluated", shared=True)
        with going_through(evaluated), named_in(problems, run), held:
            sections = evaluate(run, mc_samples=samples)
            store.write_evaluation(run, sections, mc_samples=samples)
            evaluated.append(run.record | sections)
    if evaluated:
        RESULTS.print(run_table(evaluated))
    end(problems)
