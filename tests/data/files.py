"""Damaged files, and errors of one line."""

import pytest

from vibx.data import load
from vibx.errors import UserError


def flip_a_bit(path, *, at=None, bit=0):
    """In the byte in the middle of a file, or in another one."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1 << bit
    path.write_bytes(content)


def error_of(schema, **fields):
    """What a user is told about a data set that cannot be used."""
    with pytest.raises(UserError) as caught:
        load(schema(**fields))
    message = str(caught.value)
    assert "\n" not in message
    return message
