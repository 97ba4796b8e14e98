"""`vibx train`: train one run, or the runs of a sweep, and show what came out."""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from vibx import config, runs
from vibx.display import RESULTS, EpochDisplay, run_summary, run_table, show_warnings
from vibx.errors import Interrupted, Stop, UserError

logger = logging.getLogger("vibx")

# What became of the runs that this process was asked for, in order: the table of a sweep.
finished: dict[str, runs.Record] = {}
problems: dict[str, str] = {}


def run_id(*, _root_: DictConfig) -> str:
    """`${run_id:}` of conf/train.yaml; refuses a bad configuration before Hydra writes."""
    return config.parse(_root_)[0].run_id


OmegaConf.register_new_resolver("run_id", run_id, replace=True)


def main(cfg: DictConfig) -> None:
    """Train the run of a composed configuration, unless it is finished."""
    show_warnings()
    run, execution = config.parse(cfg)
    directory = Path(execution.root) / run.run_id
    single = HydraConfig.get().mode == RunMode.RUN
    try:
        with working_on(directory):
            if execution.force:
                clear(directory)
            if runs.is_finished(directory):
                RESULTS.print(f"{run.run_id} is finished; force=true trains it again")
                record = runs.read_record(directory)
            else:
                record = train(run, execution, directory)
    except runs.LockedError as locked:
        RESULTS.print(str(locked))
        problems[run.run_id] = "in another process"
    except (UserError, OSError) as error:
        problems[run.run_id] = str(error).removeprefix(f"{run.run_id}: ")
        if single:
            raise Stop from error
        raise
    else:
        finished[run.run_id] = record
        if single:
            RESULTS.print(run_summary(record))
            RESULTS.print(f"{directory}/ has the record, the history and the predictions")


def conclude() -> None:
    """Print the table of a sweep."""
    if len(finished) + len(problems) > 1:
        RESULTS.print(run_table(list(finished.values()), problems))


def train(run: config.Config, execution: config.Execution, directory: Path) -> runs.Record:
    """Train a run under a progress display."""
    from vibx.training.run import run as train_run  # jax is imported here, after all checks

    try:
        with EpochDisplay(run.run_id, epochs=run.epochs) as display:
            return train_run(
                run,
                directory,
                eval_every=execution.eval_every,
                checkpoint_every=execution.checkpoint_every,
                on_epoch=display,
            )
    except Interrupted as stop:
        raise Interrupted(f"{run.run_id}: {stop}; the same command resumes it") from None
    except UserError as error:
        logger.info("failed: %s", error)
        raise
    except Exception:
        logger.exception("failed")
        raise


@contextlib.contextmanager
def working_on(directory: Path) -> Iterator[None]:
    """Hold a run's directory and log to its train.log; remove it if the run never got started."""
    with runs.lock(directory):
        handler = logging.FileHandler(directory / runs.LOG, delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            handler.close()
            if not (directory / runs.CONFIG).exists():
                shutil.rmtree(directory)


def clear(directory: Path) -> None:
    """Remove what a run left, its record first."""
    (directory / runs.METRICS).unlink(missing_ok=True)
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (runs.LOCK, runs.LOG):
            path.unlink()
