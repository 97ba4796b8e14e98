"""`vibx runs`: list the runs of a store, or verify them."""

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from vibx import store
from vibx.choices import refuse_unknown, require
from vibx.commands import end
from vibx.display import RESULTS
from vibx.errors import UserError
from vibx.report import verification
from vibx.report.screen import run_table
from vibx.store import StoredRun


def main(cfg: DictConfig) -> None:
    """Print a table of the store's runs, or a line for everything that is wrong with them."""
    refuse_unknown(cfg, {"hydra", "root", "runs", "verify", "weights"})
    for key in ("verify", "weights"):
        require(isinstance(cfg[key], bool), key, cfg[key], "true or false")
    require(cfg.verify or not cfg.weights, "weights", cfg.weights, "false without verify=true")
    root = Path(cfg.root)
    found = store.read_runs(root)
    chosen = store.among(found.runs, cfg.runs)
    if cfg.verify:
        problems = [line for run in chosen for line in wrong_with(run, weights=cfg.weights)]
        RESULTS.print(f"{len(chosen)} runs verified in {root}", soft_wrap=True, markup=False)
        end([*found.problems, *problems])
        return
    unfinished = {} if cfg.runs else store.unfinished(root)
    RESULTS.print(run_table([run.record for run in chosen], unfinished))
    RESULTS.print(f"{len(chosen)} finished, {len(unfinished)} unfinished in {root}")
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
