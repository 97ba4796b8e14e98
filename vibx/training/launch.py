"""From the configurations of one run or of a sweep to finished runs in the store.

Runs that differ only in traced numbers share a compiled program. A group of them is trained
together where that is faster, and one after another through it where it is not.
"""

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from vibx import store
from vibx.choices import require
from vibx.config import Config, Execution
from vibx.display import RESULTS, TrainingDisplay, show_warnings
from vibx.errors import Interrupted, LockedError, UserError

logger = logging.getLogger("vibx")

UNREADABLE = "[", "\\"  # of a path, by the pattern in which orbax looks for its own files

Job = tuple[Config, Execution]
Outcomes = dict[str, store.Record | Exception]


def launch(jobs: Sequence[Job], *, runs_at_once: int | None = None) -> Outcomes:
    """Bring every run to its record; the outcomes are by run_id, in the order of the jobs.

    Finished runs are read, unfinished ones resume. A run that fails, or that another process is
    training, has an error in place of a record.

    Args:
      jobs: configurations and how to carry them out; a run that comes twice counts once.
      runs_at_once: most runs to train together. None: one on a CPU, elsewhere as many as fit.

    Raises:
      ConfigError: the runs do not fit into memory, or their checkpoints could not be read back.
      Interrupted: SIGINT or SIGTERM came; what was being trained is saved.
    """
    show_warnings()
    refuse_unreadable(execution.root for _, execution in jobs)
    outcomes: Outcomes = {}
    for cfg, execution in jobs:
        directory = directory_of(cfg, execution)
        if store.is_finished(directory) and not execution.force:
            outcomes[cfg.run_id] = recorded(directory)
    finished = [outcome for outcome in outcomes.values() if not isinstance(outcome, Exception)]
    if len(finished) == 1 == len(jobs):
        RESULTS.print(f"{jobs[0][0].run_id} is finished; force=true trains it again")
    elif finished:
        RESULTS.print(f"{len(finished)} runs are finished; force=true trains them again")
    pending = {cfg for cfg, _ in jobs if cfg.run_id not in outcomes}
    if pending:
        refuse_too_large(pending, runs_at_once=runs_at_once)
        display = TrainingDisplay([cfg.epochs for cfg in pending])
        with display, stop_requests() as requested:
            for group, execution in groups(jobs, runs_at_once=runs_at_once):
                unfinished = [cfg for cfg in group if cfg in pending]
                if not unfinished:
                    continue
                if stop := requested():  # came after the last epoch of the group before
                    left = sum(cfg.run_id not in outcomes for cfg in pending)
                    message = f"{left} runs are not started; the same command goes on"
                    raise Interrupted(message, number=stop)
                outcomes |= train_group(
                    unfinished, execution, display, at_once=len(group), requested=requested
                )
    return {cfg.run_id: outcomes[cfg.run_id] for cfg, _ in jobs}


def refuse_unreadable(roots: Iterable[str]) -> None:
    """Refuse paths below which orbax does not find the checkpoints that it has written.

    Raises:
      ConfigError: there is one.
    """
    for path in map(os.path.abspath, roots):
        unreadable = [character for character in UNREADABLE if character in path]
        require(not unreadable, "root", path, f"without {' and '.join(unreadable)}")


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], int]]:
    """Turn SIGINT and SIGTERM into a request to stop, its number; the second one acts at once."""
    received: list[int] = []
    previous = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])
        logger.warning("stopping at the end of this epoch (again: at once, losing the epoch)")

    for number in previous:
        signal.signal(number, request)
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def recorded(directory: Path) -> store.Record | Exception:
    """A finished run's record, or why it cannot be used."""
    try:
        return store.read_record(directory)
    except store.RunError as error:
        return error


def refuse_too_large(cfgs: Collection[Config], *, runs_at_once: int | None) -> None:
    """Refuse runs that cannot fit into memory, before any is started.

    Raises:
      ConfigError: a group of them cannot.
    """
    from vibx.tracing import program
    from vibx.training.memory import require_memory

    sharing: dict[tuple, list[Config]] = {}
    for cfg in cfgs:
        sharing.setdefault((program(cfg), cfg.mc_samples), []).append(cfg)
    for group in sharing.values():
        require_memory(group[0], runs=min(runs_at_once or 1, len(group)))


def directory_of(cfg: Config, execution: Execution) -> Path:
    """Where a run is kept."""
    return Path(execution.root) / cfg.run_id


def groups(
    jobs: Sequence[Job], *, runs_at_once: int | None
) -> Iterator[tuple[list[Config], Execution]]:
    """Split jobs into groups that share a program, images and the way they are carried out.

    Over all jobs, finished or not: a sweep that is taken up again has the same groups, so its runs
    come to the same bits.
    """
    from vibx.tracing import program  # jax is imported here, after all checks
    from vibx.training.step import runs_that_fit

    sharing: dict[tuple, list[Config]] = {}
    for cfg, execution in dict(jobs).items():
        sharing.setdefault((program(cfg), cfg.data, execution), []).append(cfg)
    for (_, _, execution), cfgs in sharing.items():
        size = runs_at_once or runs_that_fit(cfgs[0])
        for start in range(0, len(cfgs), size):
            yield cfgs[start : start + size], execution


def train_group(
    group: list[Config],
    execution: Execution,
    display: TrainingDisplay,
    *,
    at_once: int,
    requested: Callable[[], int],
) -> Outcomes:
    """Train runs together, in a program for `at_once` runs, each under its directory's lock."""
    from vibx.training.group import axis_length

    outcomes: Outcomes = {}
    with contextlib.ExitStack() as locks:
        places = {}
        for cfg in group:
            directory = directory_of(cfg, execution)
            try:
                place = locks.enter_context(working_on(directory, force=execution.force))
            except (LockedError, OSError) as error:
                outcomes[cfg.run_id] = error
                continue
            if store.is_finished(place):  # by a process that held the lock until now
                outcomes[cfg.run_id] = recorded(place)
            else:
                places[cfg] = place
        if places:
            axis = axis_length(at_once)
            outcomes |= train_locked(places, execution, display, axis=axis, requested=requested)
    return outcomes


def train_locked(
    places: dict[Config, Path],
    execution: Execution,
    display: TrainingDisplay,
    *,
    axis: int,
    requested: Callable[[], int],
) -> Outcomes:
    """Train runs together under the progress display; says how a stop is taken up again."""
    from vibx.training.run import train_runs

    epochs = {cfg.run_id: cfg.epochs for cfg in places}
    try:
        with display.showing(epochs):
            trained = train_runs(
                places,
                axis=axis,
                eval_every=execution.eval_every,
                checkpoint_every=execution.checkpoint_every,
                on_epoch=display,
                requested=requested,
            )
    except Interrupted as stop:
        what = next(iter(epochs)) if len(epochs) == 1 else f"{len(epochs)} runs"
        same = "the same command"
        if any(place.name == cfg.run_id for cfg, place in places.items()) and execution.force:
            same += " without force=true"  # nothing was finished: it would start over
        message = f"{what}: {stop}; {same} resumes it"
        raise Interrupted(message, number=stop.number) from None
    except UserError as error:
        return dict.fromkeys(epochs, error)
    except Exception:
        logger.info("failed", exc_info=True)
        raise
    return {cfg.run_id: outcome for cfg, outcome in trained.items()}


class RunLog(logging.FileHandler):
    """A run's train.log; a disk that does not take it is no matter beside what it says."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line if it can be written."""
        with contextlib.suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing of a line that could not be written."""


@contextlib.contextmanager
def working_on(directory: Path, *, force: bool) -> Iterator[Path]:
    """Hold a run's directory, log to its train.log, and yield where to train."""
    with store.working(directory, work="trained", force=force) as place:
        if place != directory and not store.has_whole_checkpoint(place, directory.name):
            store.clear(place)  # what an earlier force=true left is of no use
        handler = RunLog(directory / store.LOG, delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        try:
            yield place
        finally:
            logger.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()
