"""Time the training epoch of `vibx train` against PyTorch and against its matrix products alone.

    pip install -e '.[benchmark]' && python scripts/benchmark_train.py

Three contestants take turns on the CPU, an epoch each per round, after a warm-up round:

- vibx: the compiled epoch that `vibx train` runs, with the configuration of conf/, on MNIST;
- products: the matrix products of that epoch, in a scan in one jitted function. The scan carries
  all weight gradients whole, and every other result enters the next product and, as a trace, the
  next step's input: so each product is computed in each step, and hardly anything else is;
- torch: the same model, recipe and averaging, written for speed in eager PyTorch.

What counts is the median over the rounds of torch / vibx and of vibx / products. The machine has
to be idle: PyTorch's threads spin at barriers, so other work slows it far more than the others.
"""

import argparse
import gc
import itertools
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import hydra
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from rich.table import Table

from vibx import config
from vibx.display import console
from vibx.errors import UserError
from vibx.tracing import traceable
from vibx.training.run import dataset, device_name
from vibx.training.step import compiled_epoch, compiled_initial_state, compiler_options

try:
    import torch
    from torch.nn import functional
except ImportError:
    sys.exit("benchmark_train: error: torch is missing: pip install -e '.[benchmark]'")

TORCH_OVER_VIBX = 1.1  # at least
VIBX_OVER_PRODUCTS = 1.4  # at most


class Means(NamedTuple):
    """Means over the images of an epoch, in nats, while the weights moved."""

    distortion: float
    rate: float


# A contestant: every next() is an epoch. Products alone have no means.
Epochs = Iterator[Means | None]


def vibx_epochs(cfg: config.Config) -> Epochs:
    """The epochs of `vibx train`."""
    key = jax.random.key(cfg.seed)
    images = dataset(cfg.data).train
    run_epoch = compiled_epoch(cfg)
    state, traced = compiled_initial_state(cfg)(key), traceable(cfg)
    while True:
        state, measured = jax.block_until_ready(run_epoch(traced, state, images, key))
        yield Means(float(measured.distortion), float(measured.rate))


def layer_shapes(cfg: config.Config) -> list[tuple[int, int]]:
    """Inputs and outputs of the linear layers: the encoder's, whose outputs are 2K, the decoder."""
    sizes = (cfg.data.info.pixels, *cfg.encoder.widths, 2 * cfg.K)
    return [*itertools.pairwise(sizes), (cfg.K, cfg.data.info.classes)]


def products_epochs(cfg: config.Config) -> Epochs:
    """The matrix products of an epoch: forward and both gradients of every linear layer."""
    x_key, *keys = jax.random.split(jax.random.key(cfg.seed), 1 + len(layer_shapes(cfg)))
    x = jax.random.normal(x_key, (cfg.batch_size, cfg.data.info.pixels))
    draw = jax.nn.initializers.glorot_uniform()
    weights = [draw(key, shape) for key, shape in zip(keys, layer_shapes(cfg), strict=True)]
    run_epoch = jax.jit(
        partial(products_epoch, steps=cfg.steps_per_epoch), compiler_options=compiler_options()
    )
    while True:
        jax.block_until_ready(run_epoch(x, weights))
        yield None


def products_epoch(
    x: Float[Array, "batch 784"], weights: list[Array], *, steps: int
) -> list[Array]:
    """The weight gradients of the last step, without activations, biases or updates."""

    def step(carry: tuple[Array, list[Array]], _: None) -> tuple[tuple[Array, list[Array]], None]:
        x, _ = carry
        results = products(x, weights)
        # A trace of a result in the next input keeps a compiler from hoisting the products.
        return (x + 1e-9 * results[0][:, : x.shape[1]], results[1]), None

    (_, gradients), _ = jax.lax.scan(step, (x, [jnp.zeros_like(w) for w in weights]), length=steps)
    return gradients


def products(x: Array, weights: list[Array]) -> tuple[Array, list[Array]]:
    """One step's products: the first layer's output gradient and all weight gradients."""
    inputs = []
    for w in weights:
        # As many columns as the layer reads; summed, so that none goes unused: K from 2K.
        inputs.append(x.reshape(len(x), -1, w.shape[0]).sum(axis=1))
        x = inputs[-1] @ w
    gradients = []
    for i in reversed(range(len(weights))):
        gradients.insert(0, inputs[i].T @ x)
        if i > 0:  # training asks for no gradient by the pixels
            x = x @ weights[i].T
            x = jnp.tile(x, (1, weights[i - 1].shape[1] // x.shape[1]))  # 2K from K
    return x, gradients


class TorchVIB(torch.nn.Module):
    """The same model: Glorot uniform weights, zero biases."""

    def __init__(self, cfg: config.Config) -> None:
        super().__init__()
        *encoder, self.decoder = layers = [torch.nn.Linear(*s) for s in layer_shapes(cfg)]
        for layer in layers:
            torch.nn.init.xavier_uniform_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        hidden = [m for layer in encoder[:-1] for m in (layer, torch.nn.ReLU(inplace=True))]
        self.encoder = torch.nn.Sequential(*hidden, encoder[-1])
        self.beta, self.scale_shift = cfg.beta, cfg.bottleneck.scale_shift

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The objective with one sample of z; its distortion and rate, detached: batch means."""
        mean, rho = self.encoder(x).chunk(2, dim=-1)
        scale = functional.softplus(rho + self.scale_shift)
        z = torch.addcmul(mean, scale, torch.randn_like(mean))
        distortion = functional.cross_entropy(self.decoder(z), y)
        terms = mean.square() + scale.square() - 1 - 2 * scale.log()
        rate = terms.sum() / (2 * len(x))
        return distortion + self.beta * rate, torch.stack((distortion, rate)).detach()


def torch_epochs(cfg: config.Config, *, compiled: bool) -> Epochs:
    """The same training: tensors in memory, fused Adam, foreach averaging."""
    torch.manual_seed(cfg.seed)
    recipe = cfg.optimizer
    pixels, labels = (torch.from_numpy(np.array(a)) for a in dataset(cfg.data).train)
    labels = labels.long()
    model = TorchVIB(cfg)
    loss = torch.compile(model) if compiled else model
    weights = list(model.parameters())
    adam = torch.optim.Adam(weights, betas=(recipe.b1, recipe.b2), fused=True)
    average = [torch.zeros_like(w) for w in weights]  # to be divided by 1 - decay^t when used
    for epoch in itertools.count():
        decay = recipe.decay_rate ** (epoch // recipe.decay_epochs)
        adam.param_groups[0]["lr"] = recipe.learning_rate * decay
        totals = torch.zeros(2)
        batches = torch.randperm(len(labels)).split(cfg.batch_size)
        for rows in batches:
            x = pixels[rows].float().sub_(127.5).div_(127.5)
            objective, terms = loss(x, labels[rows])
            adam.zero_grad(set_to_none=True)
            objective.backward()
            adam.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, weights, 1 - recipe.average_decay)
            totals += terms
        yield Means(*(totals / len(batches)).tolist())


def composed(beta: float, steps: int | None) -> config.Config:
    """The configuration of `vibx train beta=...`, on as many images as `steps` batches have."""
    with hydra.initialize_config_dir(str(config.directory("train")), version_base="1.3"):
        overrides = [f"beta={beta}"]
        cfg, _ = config.parse(hydra.compose("train", overrides))
        if steps is not None:
            overrides.append(f"data.train_images={steps * cfg.batch_size}")
        return config.parse(hydra.compose("train", overrides))[0]


def take_turns(contestants: dict[str, Epochs]) -> tuple[dict[str, float], dict[str, Means]]:
    """One round: each contestant's seconds, and the means of those that train."""
    seconds, means = {}, {}
    for name, epochs in contestants.items():
        gc.collect()
        start = time.perf_counter()
        measured = next(epochs)
        seconds[name] = time.perf_counter() - start
        if measured is not None:
            means[name] = measured
            if not all(map(math.isfinite, measured)):
                sys.exit(f"benchmark_train: error: {name} diverged: {measured}")
    return seconds, means


def result_table(rounds: list[dict[str, float]], *, steps: int) -> Table:
    """All rounds, then minimum and median; the median of a ratio is over the rounds' ratios."""
    rows = [[*r.values(), r["torch"] / r["vibx"], r["vibx"] / r["products"]] for r in rounds]
    names = (*(f"{name}, s" for name in rounds[0]), "torch / vibx", "vibx / products")
    table = Table("round", title=f"training epoch of {steps} steps")
    for name in names:
        table.add_column(name, justify="right")
    for number, row in enumerate(rows, 1):
        table.add_row(str(number), *(f"{x:.3f}" for x in row), end_section=row is rows[-1])
    columns = list(zip(*rows, strict=True))
    table.add_row("min", *(f"{min(c):.3f}" for c in columns[: len(rounds[0])]))
    table.add_row("median", *(f"{statistics.median(c):.3f}" for c in columns))
    table.add_row("wanted", "", "", "", f">= {TORCH_OVER_VIBX}", f"<= {VIBX_OVER_PRODUCTS}")
    return table


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (default: 3)")
    parser.add_argument("--steps", type=int, help="steps of an epoch, for a trial (default: all)")
    parser.add_argument("--beta", type=float, default=1e-3, help="weight of the rate")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the model and loss (needs a C++ compiler)",
    )
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}: must be at least 1")
    return args


def machine() -> str:
    """What the times depend on."""
    return (
        f"{device_name()}, load average {os.getloadavg()[0]:.2f}; "
        f"jax {jax.__version__}; "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads"
    )


def measure(cfg: config.Config, *, rounds: int, compiled: bool) -> None:
    """Warm up, show that both trainings agree, time the rounds and print the table."""
    contestants = {
        "vibx": vibx_epochs(cfg),
        "products": products_epochs(cfg),
        "torch": torch_epochs(cfg, compiled=compiled),
    }
    screen = console()
    screen.print(machine())
    _, means = take_turns(contestants)
    for name, (distortion, rate) in means.items():
        screen.print(f"{name:<5} warm-up epoch: distortion {distortion:.4f}, rate {rate:.2f} nats")
    times = [take_turns(contestants)[0] for _ in range(rounds)]
    screen.print(result_table(times, steps=cfg.steps_per_epoch))


def main() -> None:
    """Run the benchmark."""
    args = arguments()
    jax.config.update("jax_platforms", "cpu")
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_flush_denormal(True)  # XLA does; moments of units that died become denormal
    try:
        measure(composed(args.beta, args.steps), rounds=args.rounds, compiled=args.compile)
    except UserError as error:
        sys.exit(f"benchmark_train: error: {error}")


if __name__ == "__main__":
    main()
