"""The variational marginal r(z) of equation 14."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vibx.encodings import LOG_2PI, Gaussian


class StandardNormal:
    """r(z) = N(z | 0, I), fixed."""

    def log_prob(self, z: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
        """Log r(z) in nats."""
        return -jnp.sum(z**2 + LOG_2PI, axis=-1) / 2

    def rate(self, encoding: Gaussian) -> Float[Array, "*batch"]:
        """KL[p(z|x), r(z)] in nats, analytic: the second term of equation 17."""
        return encoding.kl_to_standard_normal()
