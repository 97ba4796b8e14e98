"""The commands, one module each."""

import contextlib
from collections.abc import Iterator, Sequence

from vibx.data.images import DataError
from vibx.display import MESSAGES
from vibx.errors import DamagedError, LockedError
from vibx.store import StoredRun


@contextlib.contextmanager
def named_in(problems: list[str], run: StoredRun) -> Iterator[None]:
    """Keep as a line why a run cannot be worked on, so that the work on the others goes on.

    It is damaged, or another process's, or its data set is not there.
    """
    try:
        yield
    except (DamagedError, LockedError) as error:
        problems.append(str(error))
    except DataError as error:
        problems.append(f"{run.record['run_id']}: {error}")


def end(problems: Sequence[str]) -> None:
    """Name what could not be used, a line each.

    Raises:
      DamagedError: there is something; the last line.
    """
    for problem in problems[:-1]:
        MESSAGES.print(problem, soft_wrap=True, markup=False)
    if problems:
        raise DamagedError(problems[-1])
