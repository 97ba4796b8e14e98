"""The networks of section 4: encoder p(z|x), decoder q(y|z), and the two with r(z) as a VIB."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from vibx import config
from vibx.config import CLASSES
from vibx.encodings import GAUSSIANS, Encoding, Point
from vibx.marginals import StandardNormal

PIXELS = 784

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}


def linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A biased linear layer: Glorot uniform weights, zero biases (the author's notebook)."""
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.glorot_uniform(), rngs=rngs)


def dropout(
    x: Float[Array, "*batch width"], key: Key[Array, ""], rate: Float[Array, ""] | float
) -> Float[Array, "*batch width"]:
    """Zero each unit with probability `rate` (which may be traced) and rescale the others."""
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)


class HiddenLayers(nnx.Module):
    """Hidden layers of an MLP."""

    def __init__(self, inputs: int, mlp: config.MLP, *, rngs: nnx.Rngs):
        sizes = (inputs, *mlp.widths)
        self.layers = nnx.List(
            [linear(inputs, outputs, rngs) for inputs, outputs in itertools.pairwise(sizes)]
        )
        self.activation = ACTIVATIONS[mlp.activation]
        self.outputs = sizes[-1]

    def __call__(
        self,
        x: Float[Array, "*batch inputs"],
        *,
        dropout_key: Key[Array, ""] | None = None,
        dropout_rate: Float[Array, ""] | float = 0.0,
    ) -> Float[Array, "*batch outputs"]:
        """The last layer's activations, with dropout after each layer if a key is given."""
        for i, layer in enumerate(self.layers):
            x = self.activation(layer(x))
            if dropout_key is not None:
                x = dropout(x, jax.random.fold_in(dropout_key, i), dropout_rate)
        return x


class Encoder(nnx.Module):
    """p(z|x): hidden layers, then one linear layer with the encoding's parameters."""

    def __init__(self, mlp: config.MLP, bottleneck: config.Bottleneck, K: int, *, rngs: nnx.Rngs):
        self.bottleneck = bottleneck
        self.hidden = HiddenLayers(PIXELS, mlp, rngs=rngs)
        stochastic = isinstance(bottleneck, config.GaussianBottleneck)
        outputs = GAUSSIANS[bottleneck.name].size(K) if stochastic else K
        self.head = linear(self.hidden.outputs, outputs, rngs)

    def __call__(self, x: Float[Array, "*batch 784"], **dropout: Any) -> Encoding:
        """The encoding of each image; `dropout` goes to the hidden layers."""
        outputs = self.head(self.hidden(x, **dropout))
        if isinstance(self.bottleneck, config.GaussianBottleneck):
            gaussian = GAUSSIANS[self.bottleneck.name]
            return gaussian.from_outputs(outputs, scale_shift=self.bottleneck.scale_shift)
        return Point(outputs)


class Decoder(nnx.Module):
    """q(y|z) as logits: S(Wz + b), with hidden layers before it where the config has some."""

    def __init__(self, decoder: config.Decoder, K: int, *, rngs: nnx.Rngs):
        widths = decoder if isinstance(decoder, config.MLP) else None
        self.hidden = HiddenLayers(K, widths, rngs=rngs) if widths else None
        self.head = linear(self.hidden.outputs if self.hidden else K, CLASSES, rngs)

    def __call__(self, z: Float[Array, "*batch K"]) -> Float[Array, "*batch 10"]:
        """Logits over the classes."""
        return self.head(self.hidden(z) if self.hidden else z)


class VIB(nnx.Module):
    """Encoder, decoder and marginal."""

    def __init__(
        self,
        *,
        encoder: config.MLP,
        bottleneck: config.Bottleneck,
        K: int,
        decoder: config.Decoder,
        rngs: nnx.Rngs,
    ):
        self.encoder = Encoder(encoder, bottleneck, K, rngs=rngs)
        self.decoder = Decoder(decoder, K, rngs=rngs)
        self.marginal = StandardNormal()
