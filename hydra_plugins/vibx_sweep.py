"""The sweeper of `vibx train` and `vibx attack`: Hydra's, but that it checks all jobs first."""

import importlib
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from vibx.config.overrides import jobs_of
from vibx.errors import ConfigError, FailedRunError, Stop, UserError


class CheckedSweeper(Sweeper):
    """Every combination of the values; nothing is written before all of them are composed."""

    def __init__(self, command: str, params: dict[str, str] | None):
        self.command = command
        self.params = params

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what is needed to compose the jobs, and make their launcher."""
        self.config = config
        self.config_loader = hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Check all jobs, then launch them.

        Raises:
          ConfigError: there are none, or one of them cannot be run.
          Stop: one failed, and the others went on; or the launcher itself failed.
        """
        grid = [f"{key}={values}" for key, values in (self.params or {}).items()]
        parser = OverridesParser.create(config_loader=self.config_loader)
        jobs = jobs_of(parser.parse_overrides([*grid, *arguments]))
        check = importlib.import_module(f"vibx.commands.{self.command}").check
        for job in jobs:
            composed = self.config_loader.load_sweep_config(self.config, list(job))
            if composed.hydra.sweeper != self.config.hydra.sweeper:
                raise ConfigError(
                    f"{' '.join(job)}: a choice that is a sweep of its own cannot be swept; "
                    f"vibx {self.command} for each"
                )
            check(composed)
        try:
            results = self.launcher.launch(jobs, initial_job_idx=0)
        except (UserError, OSError):
            raise
        except Exception as error:  # of whatever launcher: its workers were killed, say
            message = f"the launcher ended: {error}; the same command goes on"
            raise Stop from FailedRunError(message)
        raise_first_failure(results)
        return results


def raise_first_failure(results: Sequence[JobReturn]) -> None:
    """Raise the error of the first job that failed, as one of a sweep that was started."""
    failures = [result for result in results if result.status == JobStatus.FAILED]
    if failures:
        error = failures[0]._return_value  # the property prints a line
        if len(failures) < len(results):
            error = FailedRunError(f"{len(failures)} of {len(results)} failed: {error}")
        raise Stop from error
