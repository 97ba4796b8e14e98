"""`vibx train`: train one run and show what came out; sweeps go to their launcher."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vibx import config
from vibx.display import RESULTS
from vibx.errors import LockedError, Stop
from vibx.report.screen import run_summary, run_table
from vibx.training.launch import Job, launch


def run_id(*, _root_: DictConfig) -> str:
    """`${run_id:}` of conf/train.yaml; refuses a bad configuration before Hydra writes."""
    return config.parse(_root_)[0].run_id


OmegaConf.register_new_resolver("run_id", run_id, replace=True)


def main(cfg: DictConfig) -> None:
    """Train the run of a composed configuration, unless it is finished."""
    run, execution = config.parse(cfg)
    outcome = launch([(run, execution)])[run.run_id]
    match outcome:
        case LockedError():
            RESULTS.print(str(outcome))
        case Exception():
            raise outcome
        case record:
            RESULTS.print(run_summary(record))
            directory = Path(execution.root) / run.run_id
            RESULTS.print(f"{directory}/ has the record, the history and the predictions")


def sweep(jobs: Sequence[Job], *, runs_at_once: int | None) -> None:
    """Train the jobs of a sweep and end with one table of all their runs.

    Raises:
      Stop: a run failed; the others went on.
    """
    outcomes = launch(jobs, runs_at_once=runs_at_once)
    problems = {name: error for name, error in outcomes.items() if isinstance(error, Exception)}
    records = [record for record in outcomes.values() if not isinstance(record, Exception)]
    said = {name: str(error).removeprefix(f"{name}: ") for name, error in problems.items()}
    RESULTS.print(run_table(records, said))
    for error in problems.values():
        if not isinstance(error, LockedError):
            raise Stop from error
