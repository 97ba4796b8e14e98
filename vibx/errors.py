"""Errors that reach the user as one line, and the exit code that each ends with.

0: all that was asked for is there. 1: work was started, or is another process's, and is not all
there. 2: refused before anything was done. 130, 143: stopped by Ctrl-C, by SIGTERM.
"""

import contextlib
import signal
from collections.abc import Iterator, Sized


class UserError(Exception):
    """Something that the user can put right; the message says how, on one line."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration that cannot be run; the message names the key, the value and the remedy."""


class FailedRunError(UserError):
    """A run that was started and could not be finished."""

    exit_code = 1


class RunError(UserError):
    """A run or a record that cannot be used; one line that says what to do."""


class DamagedError(RunError):
    """A file that is not as it was written."""

    exit_code = 1


class LockedError(RunError):
    """Another process is working on the run: it is started, and not finished."""

    exit_code = 1


class Stop(BaseException):
    """Carries an error of the work itself, its cause, past Hydra, which would print lines."""


class Interrupted(KeyboardInterrupt):
    """Work was asked to stop by a signal, and stopped where it can be taken up again."""

    def __init__(self, message: str, *, number: int = signal.SIGINT):
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """As shells have it."""
        return 128 + self.number


@contextlib.contextmanager
def going_through(done: Sized) -> Iterator[None]:
    """Work on one thing after another: what is refused after the first is not refused input."""
    try:
        yield
    except (UserError, OSError) as error:
        if done and getattr(error, "exit_code", 2) == 2:
            raise FailedRunError(str(error)) from error
        raise


@contextlib.contextmanager
def work() -> Iterator[None]:
    """Tell what the work raises from what was wrong before it began."""
    try:
        yield
    except Exception as error:
        raise Stop from error
