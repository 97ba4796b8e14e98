"""The networks of section 4: encoder p(z|x), decoder q(y|z), and the two with r(z) as a VIB."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from vibx import config
from vibx.encodings import ENCODINGS, GAUSSIANS, Encoding, Point
from vibx.marginals import StandardNormal

PIXELS = 784
CLASSES = 10

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
            [linear(a, b, rngs) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
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
        self.head = linear(self.hidden.outputs, ENCODINGS[bottleneck.name].size(K), rngs)

    def __call__(self, x: Float[Array, "*batch 784"], **dropout: Any) -> Encoding:
        outputs = self.head(self.hidden(x, **dropout))
        match self.bottleneck:
            case config.GaussianBottleneck(name=name, scale_shift=shift):
                return GAUSSIANS[name].from_outputs(outputs, scale_shift=shift)
            case _:
                return Point(outputs)


class Decoder(nnx.Module):
    """q(y|z) as logits: S(Wz + b), with hidden layers before it where the config has some."""

    def __init__(self, decoder: config.Decoder, K: int, *, rngs: nnx.Rngs):
        widths = decoder if isinstance(decoder, config.MLP) else None
        self.hidden = HiddenLayers(K, widths, rngs=rngs) if widths else None
        self.head = linear(self.hidden.outputs if self.hidden else K, CLASSES, rngs)

    def __call__(self, z: Float[Array, "*batch K"]) -> Float[Array, "*batch 10"]:
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
