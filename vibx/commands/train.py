"""`vibx train`: train one run and show what came out; sweeps go to their launcher."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vibx import config
from vibx.config.overrides import keys_of
from vibx.display import RESULTS, remark
from vibx.errors import ConfigError, going_through
from vibx.report.screen import run_summary, run_table
from vibx.training.launch import Job, launch

STOCHASTIC = ("beta", "marginal", "mc_samples")  # without effect on a deterministic model


def check(cfg: DictConfig) -> None:
    """Refuse a composed configuration that cannot be trained.

    Raises:
      ConfigError: it cannot.
    """
    config.parse(cfg)


def main(cfg: DictConfig) -> None:
    """Train the run of a composed configuration, unless it is finished."""
    run, execution = config.parse(cfg)
    say_remarks([run], list(HydraConfig.get().overrides.task))
    outcome = launch([(run, execution)])[run.run_id]
    match outcome:
        case Exception():
            raise outcome
        case record:
            RESULTS.print(run_summary(record))
            directory = Path(execution.root) / run.run_id
            has = "has the record, the history and the predictions"
            RESULTS.print(f"{directory}/ {has}", soft_wrap=True, markup=False)


def sweep(jobs: Sequence[Job], *, runs_at_once: int | None, overrides: Sequence[str]) -> None:
    """Train the jobs of a sweep and end with one table of all their runs.

    Raises:
      UserError: a run failed, or another process is training it; the others went on.
    """
    if len(dict(jobs)) < len(set(jobs)):
        raise ConfigError("a sweep over how runs are carried out, root say, is a command for each")
    say_remarks([run for run, _ in jobs], overrides)
    outcomes = launch(jobs, runs_at_once=runs_at_once)
    problems = {name: error for name, error in outcomes.items() if isinstance(error, Exception)}
    records = [record for record in outcomes.values() if not isinstance(record, Exception)]
    said = {name: str(error).removeprefix(f"{name}: ") for name, error in problems.items()}
    RESULTS.print(run_table(records, said))
    for error in problems.values():
        with going_through(records):
            raise error


def say_remarks(runs: Sequence[config.Config], overrides: Sequence[str]) -> None:
    """Say what was asked for and makes little sense, a line each."""
    if not any(run.objective.stochastic for run in runs):
        for key in STOCHASTIC:
            if key in keys_of(overrides):
                names = ", ".join(dict.fromkeys(run.objective.name for run in runs))
                remark(f"{key} has no effect: objective={names} is deterministic")
    for text in dict.fromkeys(text for run in runs for text in run.remarks):
        remark(text)
