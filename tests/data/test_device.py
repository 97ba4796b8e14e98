"""Scaling and the order of an epoch."""

import hypothesis.extra.numpy as hnp
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibx.data import DataError
from vibx.data.device import epoch_order, scale


def test_scale_of_every_value():
    values = np.arange(256, dtype=np.uint8)
    for scaled in (scale(values), jax.jit(scale)(values)):
        assert scaled.dtype == np.float32
        assert (scaled.min(), scaled.max()) == (-1, 1)
        np.testing.assert_allclose(scaled, np.arange(256) / 127.5 - 1, rtol=0, atol=1e-7)
        np.testing.assert_array_equal(np.rint((np.asarray(scaled) + 1) * 127.5), values)


@given(hnp.array_shapes(min_dims=0, max_dims=3, max_side=5))
def test_scale_keeps_shape(shape):
    assert jax.eval_shape(scale, jax.ShapeDtypeStruct(shape, np.uint8)).shape == shape


jitted_order = jax.jit(epoch_order, static_argnames=("n", "batch_size"))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1), (300, 7), (300, 300)]))
def test_epoch_order_is_full_batches_of_a_permutation(seed, sizes):
    n, batch_size = sizes  # few, because each is compiled
    key = jax.random.key(seed)
    order = np.asarray(jitted_order(key, n=n, batch_size=batch_size))
    assert order.dtype == np.int32
    assert order.shape == (n // batch_size, batch_size)
    assert len(np.unique(order)) == order.size
    assert order.min() >= 0
    assert order.max() < n
    np.testing.assert_array_equal(order, jitted_order(key, n=n, batch_size=batch_size))


def test_epoch_order_differs_between_keys():
    orders = [
        np.asarray(jitted_order(jax.random.key(seed), n=60000, batch_size=100))
        for seed in (0, 0, 1)
    ]
    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).mean() > 0.99


@pytest.mark.parametrize("batch_size", [0, 11])
def test_epoch_order_without_one_full_batch(batch_size):
    with pytest.raises(DataError, match=f"batch_size={batch_size}: must be from 1 to 10"):
        epoch_order(jax.random.key(0), n=10, batch_size=batch_size)
