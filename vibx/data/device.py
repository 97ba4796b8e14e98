"""Images on the device: scaling and the order of an epoch."""

import jax
import jax.numpy as jnp
import numpy as np

from vibx.data.images import DataError


def scale(pixels: np.ndarray | jax.Array) -> jax.Array:
    """Scales uint8 pixels of any shape to float32 in [-1, 1]: x / 127.5 - 1."""
    # Subtracted first: a compiler fuses x / 127.5 - 1 into one rounding, which can exceed 1.
    return (jnp.asarray(pixels, jnp.float32) - 127.5) / 127.5


def epoch_order(key: jax.Array, *, n: int, batch_size: int) -> jax.Array:
    """Draws the batches of one epoch: a random permutation of n images, cut into full batches.

    Args:
        key: Random key of this epoch.
        n: Number of images; static.
        batch_size: Images in a batch; static. The last n % batch_size images are left out.

    Returns:
        int32[n // batch_size, batch_size], the indices of each batch's images.

    Raises:
        DataError: There is not one full batch.
    """
    if not 1 <= batch_size <= n:
        raise DataError(f"batch_size={batch_size}: must be from 1 to {n}")
    steps = n // batch_size
    order = jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32))
    return order[: steps * batch_size].reshape(steps, batch_size)
