"""The terminal: consoles, warnings, and the progress of long work."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, Any, Self

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

PIPE_WIDTH = 160  # columns where there is no terminal to ask


class LastingConsole(Console):
    """A console whose reader may leave: what is at work goes on, and its exit code stands."""

    def on_broken_pipe(self) -> None:
        """Write to nowhere from here on."""
        write_to_nowhere(self.file)
        self.quiet = True


def write_to_nowhere(stream: IO[str]) -> None:
    """Point a stream that nobody reads any more to a file that takes everything."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def console(*, stderr: bool = False) -> Console:
    """A console on the terminal, or a wide plain one in a pipe."""
    screen = LastingConsole(stderr=stderr, highlight=False)
    if not screen.is_terminal:
        screen.width = PIPE_WIDTH
    return screen


RESULTS = console()
MESSAGES = console(stderr=True)


def remark(text: str) -> None:
    """Say something that does not stop the work, on one line of stderr."""
    MESSAGES.print(f"note: {' '.join(text.split())}", soft_wrap=True, markup=False, emoji=False)


def show_warnings() -> None:
    """Send the package's warnings to the terminal, beside a progress bar if there is one."""
    handler = RichHandler(logging.WARNING, MESSAGES, show_time=False, show_path=False)
    logger = logging.getLogger("vibx")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)


class TrainingDisplay:
    """Progress bars over the epochs of runs on a terminal, plain lines in a pipe."""

    def __init__(self, epochs: list[int]):
        """Show runs with so many epochs each; a sweep has a bar of its own above theirs."""
        self.runs = len(epochs)
        self.shown: dict[str, TaskID] = {}
        self.latest_error: dict[str, str] = {}
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[measured]}"),
            console=MESSAGES,
            disable=not MESSAGES.is_terminal,
        )
        self.sweep = self.progress.add_task(
            f"{self.runs} runs", total=sum(epochs), measured="", visible=self.runs > 1
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    @contextlib.contextmanager
    def showing(self, runs: dict[str, int]) -> Iterator[None]:
        """Show runs, by run_id with their numbers of epochs, while they are trained."""
        for run_id, epochs in runs.items():
            self.latest_error[run_id] = ""
            self.shown[run_id] = self.progress.add_task(run_id, total=epochs, measured="compiling")
            if self.runs > 1 and not MESSAGES.is_terminal:
                MESSAGES.print(f"{len(self.shown)}/{self.runs} {run_id}")
        try:
            yield
        finally:
            for run_id in runs:
                self.progress.update(self.shown[run_id], visible=False)

    def __call__(self, run_id: str, row: dict[str, Any]) -> None:
        """Show an epoch's row of history.csv."""
        errors = {name: row[name] for name in row if name.endswith("_error_mc")}
        for name, error in errors.items():
            self.latest_error[run_id] = f", {name.removesuffix('_error_mc')} error {error:.2%}"
        rate = "" if row["rate_bits"] is None else f", rate {row['rate_bits']:.1f} bits"
        distortion = f"distortion {row['distortion_bits']:.4f} bits"
        measured = f"{distortion}{rate}{self.latest_error[run_id]}"
        task = self.progress.tasks[self.shown[run_id]]
        advance = row["epoch"] - task.completed  # more than one where a run resumes
        self.progress.update(task.id, advance=advance, measured=measured)
        self.progress.update(self.sweep, advance=advance)
        if not MESSAGES.is_terminal and (errors or row["epoch"] == 1):
            name = f"{run_id}: " if self.runs > 1 else ""
            seconds = f"{row['seconds']:.2f} s"
            MESSAGES.print(f"{name}epoch {row['epoch']}/{task.total:.0f}: {measured}, {seconds}")


@contextlib.contextmanager
def fraction_bar(title: str) -> Iterator[Callable[[float], None]]:
    """A progress bar over work of which the fraction that is done is known."""
    columns = (TextColumn(title), BarColumn(bar_width=None), TaskProgressColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=MESSAGES, disable=not MESSAGES.is_terminal
    ) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda done: progress.update(task, completed=done)
