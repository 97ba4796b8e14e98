"""The commands, one module each."""

import contextlib
from collections.abc import Iterator, Sequence

from vibx.display import MESSAGES
from vibx.errors import DamagedError


@contextlib.contextmanager
def named_in(problems: list[str]) -> Iterator[None]:
    """Keep what is damaged as a line, so that the work on the others goes on."""
    try:
        yield
    except DamagedError as error:
        problems.append(str(error))


def end(problems: Sequence[str]) -> None:
    """Name what is damaged, a line each.

    Raises:
      DamagedError: something is; the last line.
    """
    for problem in problems[:-1]:
        MESSAGES.print(problem, soft_wrap=True, markup=False)
    if problems:
        raise DamagedError(problems[-1])
