"""How often faults are tried: a few times in `make test`, many in `make faults`."""

import os

import pytest

FULL = os.environ.get("VIBX_FAULTS") == "full"
only_in_full = pytest.mark.skipif(not FULL, reason="make faults")


def times(full, *, short):
    """How often a fault is tried."""
    return full if FULL else short
