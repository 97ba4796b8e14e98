"""Information of labels against scipy, in bits and nats."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from vibx import information


@settings(derandomize=True)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=200))
def test_label_entropy_is_scipys(labels):
    counts = np.unique(labels, return_counts=True)[1]
    found = information.label_entropy(np.array(labels))
    assert found == pytest.approx(scipy.stats.entropy(counts), abs=1e-12)
    assert information.bits(found) == pytest.approx(scipy.stats.entropy(counts, base=2), abs=1e-12)
    assert information.izy_lower(np.array(labels), 0.25) == pytest.approx(found - 0.25)
