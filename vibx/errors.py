"""Errors that reach the user as one line."""


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
    """Another process is working on the run."""


class Stop(BaseException):
    """Carries a run's error, its cause, past Hydra, which would print a line of its own."""


class Interrupted(KeyboardInterrupt):
    """Work was asked to stop, and stopped where it can be taken up again."""
