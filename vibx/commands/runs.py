"""`vibx runs`: list the runs of a store, or verify them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vibx import config, store
from vibx.choices import require
from vibx.commands import end
from vibx.display import RESULTS
from vibx.errors import RunError, UserError
from vibx.report import verification
from vibx.report.screen import run_table
from vibx.store import StoredRun


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The keys of conf/runs."""

    root: str
    runs: str
    verify: bool
    weights: bool

    def __post_init__(self) -> None:
        config.expand_paths(self, "root")
        require(self.verify or not self.weights, "weights", "true", "false without verify=true")


def main(cfg: DictConfig) -> None:
    """Print a table of the store's runs, or a line for everything that is wrong with them.

    Raises:
      RunError: conditions are given, and no run satisfies them.
    """
    given = config.settings(Listing, cfg)
    root = Path(given.root)
    found = store.read_runs(root)
    chosen = store.among(found.runs, given.runs)
    if given.runs and not chosen and not found.problems:
        raise RunError(f"runs={given.runs}: no finished run in {root} matches")
    if given.verify:
        problems = [line for run in chosen for line in wrong_with(run, weights=given.weights)]
        RESULTS.print(f"{len(chosen)} runs verified in {root}", soft_wrap=True, markup=False)
        end([*found.problems, *problems])
        return
    unfinished = {} if given.runs else store.unfinished(root)
    RESULTS.print(run_table([run.record for run in chosen], unfinished))
    listed = f"{len(chosen)} finished, {len(unfinished)} unfinished in {root}"
    RESULTS.print(listed, soft_wrap=True, markup=False)
    end(found.problems)


def wrong_with(run: StoredRun, *, weights: bool) -> Iterator[str]:
    """What is wrong with a run; with `weights`, also whether these give the recorded numbers."""
    problems = list(verification.run_problems(run))
    yield from problems
    if weights and store.has_weights(run) and not problems:
        from vibx.training.run import evaluate  # imports jax

        try:
            evaluated = evaluate(run, mc_samples=run.record["config"]["mc_samples"])
            yield from verification.differences(run.record, evaluated)
        except UserError as error:
            yield str(error)
