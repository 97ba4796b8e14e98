"""Hydra's door to `vibx.training.launch`: launchers have to live in this namespace package."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class VmapLauncher(Launcher):
    """Trains the jobs of a sweep as groups that share a compiled program."""

    def __init__(self, runs_at_once: object):
        from vibx.choices import require

        whole = type(runs_at_once) is int and runs_at_once >= 1
        allowed = "a whole number, at least 1, or null"
        require(whole or runs_at_once is None, "hydra.launcher.runs_at_once", runs_at_once, allowed)
        self.runs_at_once = runs_at_once

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what is needed to compose the jobs."""
        self.config_loader = hydra_context.config_loader
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Compose and check all jobs, then train them."""
        from vibx.commands.train import sweep
        from vibx.config import parse
        from vibx.errors import work

        load = self.config_loader.load_sweep_config
        jobs = [parse(load(self.config, list(overrides))) for overrides in job_overrides]
        with work():
            sweep(
                jobs,
                runs_at_once=self.runs_at_once,
                overrides=list(self.config.hydra.overrides.task),
            )
        return [JobReturn(status=JobStatus.COMPLETED) for _ in jobs]
