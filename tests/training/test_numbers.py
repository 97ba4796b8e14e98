"""Numbers of a tiny run, which say when a new version of jax changes them."""

import jax
import numpy as np
import pytest

from tests import tiny

# Objective, distortion and rate in nats of the second epoch, and the norm of all weights after it:
# with jax 0.10.2 and 0.12.0. A version that gives others has other initial weights, noise, orders
# of the images, or arithmetic: records made with it are not those of the versions before.
NUMBERS = {
    "diagonal": (2.5344639, 2.5216928, 1.2771252, 5.2080250),
    "full_covariance": (2.6330144, 2.6157451, 1.7269253, 5.3690720),
}


@pytest.mark.parametrize("bottleneck", NUMBERS)
def test_jax_keeps_its_numbers(bottleneck):
    """To rounding, which differs from one processor to another."""
    cfg = tiny.vib(bottleneck=bottleneck)
    state, (_, measured) = tiny.train(cfg, images=tiny.images(128), epochs=2)
    weights = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.parameters)])
    found = measured.objective, measured.distortion, measured.rate, np.linalg.norm(weights)
    np.testing.assert_allclose(
        found, NUMBERS[bottleneck], rtol=1e-5, err_msg=f"jax {jax.__version__} changes numbers"
    )
