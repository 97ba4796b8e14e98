"""The networks of section 4: encoder p(z|x), decoder q(y|z), and the two with r(z) as a VIB.

To add hidden layers of another kind: a schema in `vibx/config/schemas.py`, a module registered for
it here, and its yaml.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from vibx.choices import found_by_schema
from vibx.config import Config, schemas
from vibx.encodings import Encoding, parameterisation
from vibx.marginals import marginal

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}
GLOROT = nnx.initializers.glorot_uniform()  # with zero biases: the author's notebook


def linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A biased linear layer."""
    return nnx.Linear(inputs, outputs, kernel_init=GLOROT, rngs=rngs)


def dropout(
    x: Float[Array, "*batch width"], key: Key[Array, ""], rate: Float[Array, ""] | float
) -> Float[Array, "*batch width"]:
    """Zero each unit with probability `rate` (which may be traced) and rescale the others."""
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)


class HiddenLayers(nnx.Module):
    """Layers in sequence, each with the activation behind it; `outputs` is the last one's width."""

    def __init__(self, layers: Sequence[nnx.Module], schema: schemas.Layers, *, outputs: int):
        self.layers = nnx.List(layers)
        self.activation = ACTIVATIONS[schema.activation]
        self.outputs = outputs

    def __call__(
        self,
        x: Float[Array, "... inputs"],
        *,
        dropout_key: Key[Array, ""] | None = None,
        dropout_rate: Float[Array, ""] | float = 0.0,
    ) -> Float[Array, "... outputs"]:
        """The last layer's activations, with dropout after each layer if a key is given."""
        for i, layer in enumerate(self.layers):
            x = self.activation(layer(x))
            if dropout_key is not None:
                x = dropout(x, jax.random.fold_in(dropout_key, i), dropout_rate)
        return x


@found_by_schema
def layers(schema: object, shape: tuple[int, ...], *, rngs: nnx.Rngs) -> HiddenLayers | None:
    """The hidden layers that a schema stands for; None where it has none.

    Their input is flat, and was of the given shape.
    """


@layers.register(schemas.Linear)
def _(_: schemas.Linear, shape: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
    return None


@layers.register(schemas.MLP)
class DenseLayers(HiddenLayers):
    """Dense layers: section 4.1's encoder."""

    def __init__(self, schema: schemas.Layers, shape: tuple[int, ...], *, rngs: nnx.Rngs):
        sizes = (math.prod(shape), *schema.widths)
        dense = [linear(inputs, outputs, rngs) for inputs, outputs in itertools.pairwise(sizes)]
        super().__init__(dense, schema, outputs=sizes[-1])


@layers.register(schemas.CNN)
class ConvolutionalLayers(HiddenLayers):
    """Convolutions that halve height and width, then dense layers."""

    def __init__(self, schema: schemas.CNN, shape: tuple[int, ...], *, rngs: nnx.Rngs):
        self.shape = shape
        *size, inputs = shape
        window = (schema.kernel, schema.kernel)
        convolutions = []
        for outputs in schema.channels:
            convolutions.append(
                nnx.Conv(inputs, outputs, window, strides=2, kernel_init=GLOROT, rngs=rngs)
            )
            size, inputs = [-(-length // 2) for length in size], outputs
        self.dense = DenseLayers(schema, (*size, inputs), rngs=rngs)
        super().__init__(convolutions, schema, outputs=self.dense.outputs)

    def __call__(
        self, x: Float[Array, "*batch pixels"], **options: Any
    ) -> Float[Array, "*batch outputs"]:
        """The last dense layer's activations."""
        image = super().__call__(x.reshape(*x.shape[:-1], *self.shape), **options)
        x = image.reshape(*x.shape[:-1], -1)
        if options.get("dropout_key") is not None:
            options["dropout_key"] = jax.random.fold_in(options["dropout_key"], len(self.layers))
        return self.dense(x, **options)


class Encoder(nnx.Module):
    """p(z|x): hidden layers, then one linear layer with the encoding's parameters."""

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs):
        hidden = layers(cfg.encoder, cfg.data.info.shape, rngs=rngs)
        assert hidden is not None  # no encoder's schema is without layers
        self.hidden = hidden
        self.bottleneck, self.K = cfg.bottleneck, cfg.K
        outputs = parameterisation(cfg.bottleneck, cfg.K).size
        self.head = linear(self.hidden.outputs, outputs, rngs)

    def __call__(self, x: Float[Array, "*batch pixels"], **dropout: Any) -> Encoding:
        """The encoding of each image; `dropout` goes to the hidden layers."""
        outputs = self.head(self.hidden(x, **dropout))
        return parameterisation(self.bottleneck, self.K).encoding(outputs)


class Decoder(nnx.Module):
    """q(y|z) as logits: S(Wz + b) of section 4, after hidden layers where the config has some."""

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs):
        self.hidden = layers(cfg.decoder, (cfg.K,), rngs=rngs)
        inputs = self.hidden.outputs if self.hidden else cfg.K
        self.head = linear(inputs, cfg.data.info.classes, rngs)

    def __call__(self, z: Float[Array, "*batch K"]) -> Float[Array, "*batch classes"]:
        """Logits over the classes."""
        return self.head(self.hidden(z) if self.hidden else z)


class VIB(nnx.Module):
    """Encoder, decoder and marginal."""

    def __init__(self, cfg: Config, *, rngs: nnx.Rngs):
        self.encoder = Encoder(cfg, rngs=rngs)
        self.decoder = Decoder(cfg, rngs=rngs)
        self.marginal = marginal(cfg.marginal, cfg.K, rngs=rngs)
