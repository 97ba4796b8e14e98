"""How often faults are tried: a few times in `make test`, many in `make faults`."""

import os

import pytest

FULL = os.environ.get("VIBX_FAULTS") == "full"
only_in_full = pytest.mark.skipif(not FULL, reason="make faults")


def cases(names, *, short):
    """Parameters of a test, of which `make test` tries only some."""
    return [pytest.param(name, marks=() if name in short else only_in_full) for name in names]


def times(full, *, short):
    """How often a fault is tried."""
    return full if FULL else short
