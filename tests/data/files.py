"""Damaged files, and errors of one line."""

import pytest

from vibx.data import load
from vibx.errors import UserError


def flip_a_byte(path, *, at=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    path.write_bytes(content)


def error_of(schema, **fields):
    """What a user is told about a data set that cannot be used."""
    with pytest.raises(UserError) as caught:
        load(schema(**fields))
    message = str(caught.value)
    assert "\n" not in message
    return message
