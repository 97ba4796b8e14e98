"""The least of equation 17 at K = 2, without training: for an encoder that sees the class alone.

On the training images no encoder does better. Whatever the decoder q(y|z), an image's part of the
objective depends on the image through its class y and p(z|x) alone: what is best for one image of a
class is best for all of them. What a trained model ends above it is left to the optimizer and the
network. The search is from several starts, not from all: the least that it finds bounds the least
from above: as many steps again would gain up to 0.003 nats, at beta = 0.5. Classes are uniform
here; MNIST's training labels have 0.0014 nats less than log 10.

Nothing is below H(Y) at beta >= 1: by the data processing inequality rate >= I(Z,X) >= I(Z,Y), and
distortion >= H(Y|Z), hence distortion + beta rate >= H(Y) + (beta - 1) rate. The collapsed encoder,
p(z|x) = r(z) for all x, attains it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special  # type: ignore[import-untyped]

from vibx.files import arrays_in, write_arrays

Array = npt.NDArray[np.float64]

FILE = Path(__file__).with_suffix(".npz")  # written by scripts/class_only.py

K = 2
CLASSES = 10
STEPS = ((10, 300), (16, 600))  # nodes of the quadrature along an axis, and steps with them
FINE_NODES = 48  # of what an optimum attains
ANGLES = 4096  # of the exact error with one sample
ANSWERS = 100_000  # of the error with an average of samples
LOWER = np.tril_indices(K)
DIAGONAL = LOWER[0] == LOWER[1]


class ClassOnly(NamedTuple):
    """Ten Gaussians N(mean, LL^T) in the plane and q(y|z) = softmax(zW + b), as in `networks`.

    Attributes:
        means: [classes, 2].
        cholesky: L, lower triangular with a positive diagonal, [classes, 2, 2].
        kernel: W, [2, classes].
        bias: b, [classes].
    """

    means: Array
    cholesky: Array
    kernel: Array
    bias: Array


class Optimum(NamedTuple):
    """The encodings and decoder of the least objective found at a beta; in nats."""

    beta: float
    objective: float
    distortion: float
    rate: float
    model: ClassOnly


class Recorded(NamedTuple):
    """An optimum as `FILE` has it: also its start, and its errors, as fractions."""

    beta: float
    objective: float
    distortion: float
    rate: float
    model: ClassOnly
    start: str
    error_1: float
    error_mc: float


def read() -> list[Recorded]:
    """The optima that were found, by beta, at each the least objective first."""
    arrays = arrays_in(FILE.read_bytes())
    models = [unpack(vector) for vector in arrays.pop("model")]
    columns = {name: values.tolist() for name, values in arrays.items()}
    return [
        Recorded(model=model, **{name: values[i] for name, values in columns.items()})
        for i, model in enumerate(models)
    ]


def write(optima: Sequence[Recorded]) -> None:
    """Write `FILE`."""
    columns = {
        name: np.array([getattr(optimum, name) for optimum in optima])
        for name in Recorded._fields
        if name != "model"
    }
    write_arrays(FILE, model=np.stack([pack(o.model) for o in optima]), **columns)


def quadrature(nodes: int) -> tuple[Array, Array]:
    """Points in the plane [nodes ** 2, 2] and weights whose sum is the mean over N(0, I).

    The product of Gauss and Hermite's rule with itself.
    """
    x, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, K)
    return grid, np.outer(weights, weights).ravel()


def pack(model: ClassOnly) -> Array:
    """A model as a vector without constraints: logarithms of the diagonals of L."""
    entries = model.cholesky[:, *LOWER].copy()
    entries[:, DIAGONAL] = np.log(entries[:, DIAGONAL])
    return np.concatenate([part.ravel() for part in model._replace(cholesky=entries)])


def unpack(vector: Array) -> ClassOnly:
    """The inverse of `pack`."""
    sizes = np.cumsum([CLASSES * K, CLASSES * len(LOWER[0]), K * CLASSES])
    means, entries, kernel, bias = np.split(vector, sizes)
    entries = entries.reshape(CLASSES, -1).copy()
    entries[:, DIAGONAL] = np.exp(entries[:, DIAGONAL])
    cholesky = np.zeros((CLASSES, K, K))
    cholesky[:, *LOWER] = entries
    return ClassOnly(means.reshape(CLASSES, K), cholesky, kernel.reshape(K, CLASSES), bias)


def terms(model: ClassOnly, points: Array, weights: Array) -> tuple[float, float]:
    """Distortion and rate in nats, the mean over uniform classes."""
    distortion, *_ = distortion_and_gradient(model, points, weights)
    return distortion, rate(model)


def rate(model: ClassOnly) -> float:
    """KL[p(z|y), N(0, I)], the mean over the classes, in nats."""
    diagonals = np.diagonal(model.cholesky, axis1=1, axis2=2)
    squares = np.sum(model.cholesky**2) + np.sum(model.means**2) - CLASSES * K
    return float(squares / 2 - np.log(diagonals).sum()) / CLASSES


def distortion_and_gradient(
    model: ClassOnly, points: Array, weights: Array
) -> tuple[float, ClassOnly]:
    """E[-log q(y|z)] in nats and its derivative by every number of the model."""
    z = model.means[..., None] + model.cholesky @ points.T  # [classes, 2, points]
    z = np.concatenate(z, axis=-1)  # [2, classes * points]
    logits = model.kernel.T @ z + model.bias[:, None]
    logits -= logits.max(axis=0)
    q = np.exp(logits)
    total = q.sum(axis=0)
    each = np.arange(CLASSES)
    of_class = logits.reshape(CLASSES, CLASSES, -1)[each, each]  # log q(y|z) without log(total)
    loss = np.log(total).reshape(CLASSES, -1) - of_class
    q /= total
    q.reshape(CLASSES, CLASSES, -1)[each, each] -= 1
    by_logits = q * np.tile(weights / CLASSES, CLASSES)
    by_z = (model.kernel @ by_logits).reshape(K, CLASSES, -1).swapaxes(0, 1)
    gradient = ClassOnly(
        means=by_z.sum(axis=-1),
        cholesky=np.tril(by_z @ points),
        kernel=z @ by_logits.T,
        bias=by_logits.sum(axis=-1),
    )
    return float(np.sum(loss @ weights) / CLASSES), gradient


def objective_and_gradient(
    vector: Array, beta: float, points: Array, weights: Array
) -> tuple[float, Array]:
    """Equation 17 in nats for a packed model, and its gradient."""
    model = unpack(vector)
    distortion, gradient = distortion_and_gradient(model, points, weights)
    by_cholesky = gradient.cholesky + beta * model.cholesky / CLASSES
    entries = by_cholesky[:, *LOWER]
    # The chain rule of the logarithms; that of the rate's own logarithm is constant.
    entries[:, DIAGONAL] *= model.cholesky[:, *LOWER][:, DIAGONAL]
    entries[:, DIAGONAL] -= beta / CLASSES
    by_means = gradient.means + beta * model.means / CLASSES
    parts = gradient._replace(means=by_means, cholesky=entries)
    return distortion + beta * rate(model), np.concatenate([part.ravel() for part in parts])


def collapsed() -> ClassOnly:
    """p(z|x) = r(z) and q(y|z) = 1 / 10: a rate of 0."""
    cholesky = np.tile(np.eye(K), (CLASSES, 1, 1))
    return ClassOnly(np.zeros((CLASSES, K)), cholesky, np.zeros((K, CLASSES)), np.zeros(CLASSES))


def on_rings(sizes: Sequence[int], width: float) -> ClassOnly:
    """Equal Gaussians on one circle or two, as many on each as `sizes` says."""
    radii = (1.4,) if len(sizes) == 1 else (0.6, 1.6)
    angles = [2 * np.pi * (np.arange(n) + 0.25 * i) / n for i, n in enumerate(sizes)]
    circles = [
        radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        for radius, angle in zip(radii, angles, strict=True)
    ]
    return bayes(np.concatenate(circles), width)


def bayes(means: Array, width: float) -> ClassOnly:
    """Equal Gaussians, and q(y|z) as Bayes' rule has it for them."""
    cholesky = np.tile(width * np.eye(K), (CLASSES, 1, 1))
    return ClassOnly(means, cholesky, means.T / width**2, -np.sum(means**2, -1) / (2 * width**2))


def stripes(width: float) -> ClassOnly:
    """Gaussians side by side along the first axis, each as wide as r(z) along the second."""
    edges = special.ndtri(np.arange(1, CLASSES) / CLASSES)
    centres = special.ndtri((np.arange(CLASSES) + 0.5) / CLASSES)
    widths = np.diff(np.concatenate([[edges[0] - 1], edges, [edges[-1] + 1]])) * width
    cholesky = np.zeros((CLASSES, K, K))
    cholesky[:, 0, 0], cholesky[:, 1, 1] = widths, 1
    slopes = 2 / width**2 * np.arange(CLASSES)
    bias = -np.concatenate([[0], np.cumsum(np.diff(slopes) * edges)])
    return ClassOnly(
        np.stack([centres, np.zeros(CLASSES)], axis=-1),
        cholesky,
        np.stack([slopes, np.zeros(CLASSES)]),
        bias,
    )


def scattered(seed: int, width: float) -> ClassOnly:
    """As `on_rings`, with means drawn from N(0, I)."""
    means = np.random.default_rng(seed).normal(size=(CLASSES, K))
    return bayes(means, width)


def starts(beta: float) -> dict[str, ClassOnly]:
    """Where the search starts, by name."""
    width = 0.15 + 0.5 * beta
    return {
        "stripes": stripes(min(width, 0.4)),
        "circle": on_rings((10,), width),
        "two circles": on_rings((2, 8), width),
        "scattered": scattered(0, width),
    }


def minimise(beta: float, start: ClassOnly) -> Optimum:
    """Equation 17 minimised from a start: a local optimum, or what is near one after `STEPS`."""
    from scipy import optimize  # half a second, which drawing goes without

    vector = pack(start)
    for (nodes, steps), tolerance in zip(STEPS, (1e-9, 1e-12), strict=True):
        found = optimize.minimize(
            objective_and_gradient,
            vector,
            args=(beta, *quadrature(nodes)),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps, "ftol": tolerance, "gtol": 1e-9, "maxcor": 40},
        )
        vector = found.x
    return evaluate(beta, unpack(vector))


def evaluate(beta: float, model: ClassOnly) -> Optimum:
    """What a model attains of equation 17."""
    distortion, rate = terms(model, *quadrature(FINE_NODES))
    return Optimum(beta, distortion + beta * rate, distortion, rate, model)


def aligned(model: ClassOnly) -> ClassOnly:
    """The model for an encoder whose covariances are diagonal, as those at K = 256.

    It is turned until the spread of the classes' means lies along the axes; what their covariances
    then have off the diagonal is dropped. Any other coordinate of z is r(z)'s, and costs nothing.
    """
    _, turn = np.linalg.eigh(np.cov(model.means.T))
    widths = np.linalg.norm(turn.T @ model.cholesky, axis=-1)
    return ClassOnly(
        model.means @ turn, widths[..., None] * np.eye(K), turn.T @ model.kernel, model.bias
    )


def flatness(model: ClassOnly) -> float:
    """The spread of the classes' means along the shorter axis relative to the longer one."""
    longer, shorter = np.linalg.svd(model.means - model.means.mean(axis=0), compute_uv=False)
    return float(shorter / longer) if longer > 0 else 1.0


# Errors


def error_1(model: ClassOnly) -> float:
    """The share of classes that one sample of z gets wrong: exact but for a sum over directions.

    In the direction u from a mean, z = mean + r L u is in its class's region, which is convex, for
    one interval of r; r is that of N(0, I), and its probability is exp(-low^2/2) - exp(-high^2/2).
    """
    angles = 2 * np.pi * (np.arange(ANGLES) + 0.5) / ANGLES
    directions = np.stack([np.cos(angles), np.sin(angles)])
    right = []
    for y in range(CLASSES):
        others = np.arange(CLASSES) != y
        normals = (model.kernel[:, others] - model.kernel[:, [y]]).T  # q(k|z) > q(y|z) where
        offsets = model.bias[y] - model.bias[others] - normals @ model.means[y]  # normal dz > it
        slopes = normals @ model.cholesky[y] @ directions  # [others, angles]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossings = offsets[:, None] / slopes
        high = np.min(crossings, axis=0, where=slopes > 0, initial=np.inf)
        high = np.maximum(high, 0)  # behind the mean, where r is not
        low = np.max(crossings, axis=0, where=slopes < 0, initial=0)
        never = ((slopes == 0) & (offsets[:, None] <= 0)).any(axis=0)  # ties are not right
        inside = np.maximum(np.exp(-(low**2) / 2) - np.exp(-(high**2) / 2), 0)
        right.append(np.where(never, 0, inside).mean())
    return 1 - float(np.mean(right))


def error_mc(model: ClassOnly, *, samples: int = 12, answers: int = ANSWERS) -> float:
    """The share of answers that are wrong with q(y|z) averaged over samples of z, simulated.

    The same noise for each model. The standard error is at most 0.5 / sqrt(answers), 0.16 points.
    `answers` are split equally among the classes.
    """
    draw = np.random.default_rng(0)
    wrong = 0
    for y in range(CLASSES):
        noise = draw.normal(size=(answers // CLASSES * samples, K))
        z = model.means[y] + noise @ model.cholesky[y].T
        q = special.softmax(model.kernel.T @ z.T + model.bias[:, None], axis=0)
        average = q.reshape(CLASSES, -1, samples).mean(axis=-1)
        wrong += int(np.sum(average.argmax(axis=0) != y))
    return wrong / (answers // CLASSES * CLASSES)
