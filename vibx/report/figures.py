"""Figures 1 and 2, drawn from records, and the numbers that they show.

Imports no jax, and leaves matplotlib's global state as it found it.
"""

import io
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.scale import FuncScale

from vibx import store
from vibx.config import CLASSES
from vibx.report import published as paper
from vibx.store import Record, RunError, StoredRun

Array = npt.NDArray[np.float64]

in_style = matplotlib.rc_context(fname=Path(__file__).with_name("vibx.mplstyle"))

WIDTH = 5.5  # inches, the paper's column
CLASS_BITS = math.log2(CLASSES)  # what z must tell to name the class

K256 = "objective=vib,K=256,bottleneck=diagonal,data.validation=0"
K2 = "objective=vib,K=2,bottleneck=full_covariance,decoder=linear,data.validation=0"


class Curve(NamedTuple):
    """A curve of errors: of which images, which quantity of their record, and how it looks."""

    images: str
    quantity: str
    look: dict[str, Any]


# Colour-blind eyes tell blue from vermilion (Okabe and Ito); in grey, lines and markers differ.
TRAIN = {"color": "#0072B2", "linestyle": "-.", "marker": "s"}
TEST = {"color": "#D55E00", "linestyle": "-", "marker": "o"}
HOLLOW = {"markerfacecolor": "none", "markersize": 5}  # to be seen behind the averages' markers
ERRORS = {
    "train, 1 shot eval": Curve("train", "error_1", {**TRAIN, **HOLLOW, "linestyle": ":"}),
    "train, avg eval": Curve("train", "error_mc", TRAIN),
    "test, 1 shot eval": Curve("test", "error_1", {**TEST, **HOLLOW, "linestyle": "--"}),
    "test, avg eval": Curve("test", "error_mc", TEST),
}
INFORMATION: dict[str, dict[str, Any]] = {"train": {**TRAIN, **HOLLOW}, "test": TEST}
PAPER: dict[str, Any] = {"color": "black", "linestyle": "none", "zorder": 3}
PUBLISHED = {
    "paper, 1 shot eval": ("error_1", {**PAPER, **HOLLOW, "marker": "D"}),
    "paper, avg eval": ("error_mc", {**PAPER, "marker": "*", "markersize": 5}),
}
REFERENCE: dict[str, Any] = {"color": "0.5", "linewidth": 0.6, "zorder": 1}
SMALL = 6.5  # points
MARGIN = 1.6  # factor between the outermost values and the ends of a log axis
MOST_TICKS = 6  # labelled on a log axis, beside 0
COLUMNS = ["panel", "curve", "beta", "x_name", "x", "y_name", "y", "y_low", "y_high", "seeds"]

RADIUS_95 = math.sqrt(-2 * math.log(0.05))  # of N(0, I) in two dimensions: chi-square's quantile
CUT = 0.005  # share of the ellipses that may leave Figure 2 at either end of an axis
PIXELS = 300  # of the entropy, along an axis
GREYS = LinearSegmentedColormap.from_list("entropy", ["1.0", "0.63"])  # the colours show on all

# Any two are 0.12 apart or more in Oklab for normal, protan, deutan and tritan eyes, and 0.08
# from the background's greys; of matplotlib's own ten, two are 0.007 apart.
CLASS_COLORS = np.array(
    [
        "#000000",
        "#e61919",
        "#7eb8f1",
        "#66ff33",
        "#aa4499",
        "#eb9947",
        "#1919e6",
        "#730d0d",
        "#7070ff",
        "#1d2e63",
    ]
)


@in_style
def figure1(k256: list[StoredRun], k2: list[StoredRun]) -> tuple[Figure, pd.DataFrame]:
    """Errors, I(Z,X) and I(Z,Y) as beta varies: (a), (c), (d) from `k256`, (b) from `k2`.

    Lines are means over the seeds, bands reach from the lowest seed to the highest. A zero stands
    after a break of the log axis. Beyond the paper: its published errors, the best beta (smallest
    mean test error_mc) and log2(10) bits.

    Returns:
      The figure and its numbers. `x` and `y` are what `x_name` and `y_name` say: beta, errors as
      fractions of the images, or bits. `y_low` and `y_high` bound the band.

    Raises:
      RunError: runs that do not belong in one panel, or a beta that lacks a seed of the others.
    """
    check(k256, K256)
    check(k2, K2)
    figure = Figure(figsize=(WIDTH, 4.8))
    (a, b), (c, d) = figure.subplots(2, 2)
    numbers = {
        "a": draw_errors(a, k256, title="(a) $K = 256$"),
        "b": draw_errors(b, k2, title="(b) $K = 2$, full covariance"),
        "c": draw_plane(c, k256, title="(c) $K = 256$"),
        "d": draw_rate(d, k256, title="(d) $K = 256$"),
    }
    lines, labels = b.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=3)
    lay_out(figure)
    table = pd.concat(numbers, names=["panel", "curve", "row"]).reset_index()
    return figure, table[COLUMNS].astype({"seeds": "Int64"})


@in_style
def figure2(stored: list[StoredRun]) -> tuple[Figure, pd.DataFrame]:
    """Posteriors of 1,000 test images in two dimensions, at the paper's three betas.

    Each p(z|x) is drawn as the ellipse that holds 95% of it, coloured by the true class, over the
    entropy of q(y|z) in bits. Of several seeds the first is shown.

    Returns:
      The figure and its numbers: per panel and image the mean and the covariance of p(z|x); the
      run's errors are fractions of the test images.

    Raises:
      RunError: runs that do not belong in one figure, a beta without a run, or a run without its
        embedding.
    """
    check(stored, K2)
    chosen = [first_seed(stored, beta) for beta in paper.FIGURE_2]
    embeddings = [store.read_arrays(run.directory / store.EMBEDDING) for run in chosen]
    figure = Figure(figsize=(WIDTH, 2.5))
    panels = figure.subplots(1, len(chosen))
    for letter, axes, run, embedding in zip("abc", panels, chosen, embeddings, strict=True):
        image = draw_embedding(axes, embedding)
        entitle(axes, letter, run.record)
    panels[0].set_ylabel("$z_2$", labelpad=0)
    figure.colorbar(image, ax=panels, label="entropy of $q(y|z)$, bits", pad=0.02, aspect=25)
    digits = [str(digit) for digit in range(CLASSES)]
    swatches = [Line2D([], [], color=color, marker="o", ls="none") for color in CLASS_COLORS]
    figure.legend(
        swatches,
        digits,
        loc="outside lower center",
        ncols=CLASSES,
        handlelength=1,
        title="true class",
    )
    lay_out(figure)
    numbers = map(embedding_numbers, "abc", chosen, embeddings)
    return figure, pd.concat(numbers, ignore_index=True)


def lay_out(figure: Figure) -> None:
    """Place the panels, once and for all: whatever is drawn of the figure then looks the same."""
    engine = ConstrainedLayoutEngine(compress=True)
    before = np.zeros((len(figure.axes), 4))
    for _ in range(5):  # panels of a fixed aspect settle in the fourth round, others sooner
        engine.execute(figure)
        placed = np.array([axes.get_position().bounds for axes in figure.axes])
        if np.allclose(placed, before, rtol=0, atol=1e-6):
            break
        before = placed


@in_style
def save(figure: Figure, numbers: pd.DataFrame, output: Path, name: str) -> list[Path]:
    """Write a figure as <name>.pdf and .png and its numbers as .csv; returns the three paths.

    The same records give the same bytes: the PDF goes without its date.
    """
    contents = {
        "pdf": rendered(figure, format="pdf", metadata={"CreationDate": None}),
        "png": rendered(figure, format="png"),
        "csv": numbers.to_csv(index=False).encode(),
    }
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, content in contents.items():
        written.append(output / f"{name}.{suffix}")
        store.write_whole(written[-1], content)
    return written


def rendered(figure: Figure, **options: Any) -> bytes:
    """The bytes of a figure's file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def check(stored: list[StoredRun], conditions: str) -> None:
    """Refuse runs that would make a panel other than it looks.

    Raises:
      RunError: no runs, a run that fails the `conditions` (as `store.matching` reads them), runs
        that differ in more than beta and seed, or a beta that lacks a seed of the others.
    """
    if not stored:
        raise RunError(f"no runs with {conditions}")
    records = [run.record for run in stored]
    first = records[0]
    for record in records:
        if not store.matching([record], conditions):
            raise RunError(f"{record['run_id']}: not a run with {conditions}")
        if keys := different_keys(record["config"], first["config"]) - {"beta", "seed"}:
            raise RunError(
                f"{record['run_id']} and {first['run_id']} differ in {', '.join(sorted(keys))}; "
                f"the runs of a panel differ in beta and seed only"
            )
    check_seeds([record["config"] for record in records])


def different_keys(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Keys whose values differ."""
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def check_seeds(configs: list[dict[str, Any]]) -> None:
    """Refuse a beta that lacks a seed which another beta has."""
    seeds = {config["seed"] for config in configs}
    for beta in sorted({config["beta"] for config in configs}):
        missing = seeds - {config["seed"] for config in configs if config["beta"] == beta}
        if missing:
            listed = ", ".join(map(str, sorted(missing)))
            raise RunError(f"beta={beta:g} lacks seed {listed}, which another beta has")


# Figure 1


def draw_errors(axes: Axes, stored: list[StoredRun], *, title: str) -> pd.DataFrame:
    """Draw panel (a) or (b), error against beta; returns its numbers."""
    measured, config = measurements(stored), stored[0].record["config"]
    curves = {
        label: curve_numbers(measured, curve.images, x="beta", y=curve.quantity)
        for label, curve in ERRORS.items()
    }
    points = published(config)
    average = curves["test, avg eval"]
    best = average.loc[[average["y"].idxmin()]]
    drawn = pd.concat([*curves.values(), *points.values()])
    log_axis(axes, "x", drawn["x"])
    log_axis(axes, "y", [*drawn["y"], *drawn["y_low"].dropna(), 1], label=percent)
    for label, numbers in curves.items():
        draw_curve(axes, numbers, label, ERRORS[label].look)
    for label, numbers in points.items():
        axes.plot(numbers["x"], numbers["y"], label=label, **PUBLISHED[label][1])
    best_beta = best["beta"].item()
    line = axes.axvline(best_beta, **REFERENCE)
    axes.set(title=title, xlabel=r"$\beta$", ylabel="error rate")
    axes.legend(
        [line],
        [rf"best $\beta =$ {in_mathtext(best_beta)}"],
        title=legend_note(measured, config),
        alignment="left",
    )
    return pd.concat({**curves, **points, "best beta": best})


def draw_plane(axes: Axes, stored: list[StoredRun], *, title: str) -> pd.DataFrame:
    """Draw panel (c), I(Z,Y) against I(Z,X); returns its numbers."""
    measured = measurements(stored)
    log_axis(axes, "x", np.append(measured["izx_upper_bits"], CLASS_BITS))
    numbers = draw_information(axes, measured, x="izx_upper_bits", y="izy_lower_bits")
    axes.axvline(CLASS_BITS, **REFERENCE)
    axes.set(
        title=title,
        xlabel=r"$I(Z,X)$ at most, bits ($\leftarrow$ larger $\beta$)",
        ylabel="$I(Z,Y)$ at least, bits",
    )
    axes.legend(loc="lower right")
    return numbers


def draw_rate(axes: Axes, stored: list[StoredRun], *, title: str) -> pd.DataFrame:
    """Draw panel (d), I(Z,X) against beta; returns its numbers."""
    measured = measurements(stored)
    log_axis(axes, "x", measured["beta"])
    log_axis(axes, "y", np.append(measured["izx_upper_bits"], CLASS_BITS))
    numbers = draw_information(axes, measured, x="beta", y="izx_upper_bits")
    axes.set(title=title, xlabel=r"$\beta$", ylabel="$I(Z,X)$ at most, bits")
    axes.legend(loc="lower left")
    return numbers


def draw_information(axes: Axes, measured: pd.DataFrame, *, x: str, y: str) -> pd.DataFrame:
    """Draw a curve for the train and the test images, and a line at y = log2(10) bits."""
    curves = {images: curve_numbers(measured, images, x=x, y=y) for images in INFORMATION}
    for images, numbers in curves.items():
        draw_curve(axes, numbers, images, INFORMATION[images])
    axes.axhline(CLASS_BITS, label=r"$\log_2 10$ bits", **REFERENCE)
    return pd.concat({**curves, "log2(10)": pd.DataFrame([{"y_name": y, "y": CLASS_BITS}])})


def measurements(stored: list[StoredRun]) -> pd.DataFrame:
    """A row per run and set of images: beta, seed and the quantities of the record."""
    return pd.DataFrame(
        [
            {
                "beta": r["config"]["beta"],
                "seed": r["config"]["seed"],
                "images": images,
                **r[images],
            }
            for _, r in stored
            for images in ("train", "test")
        ]
    )


def curve_numbers(measured: pd.DataFrame, images: str, *, x: str, y: str) -> pd.DataFrame:
    """A curve's points in the order of beta: means over the seeds, and the range of y."""
    by_beta = measured[measured["images"] == images].groupby("beta")
    return pd.DataFrame(
        {
            "x_name": x,
            "x": by_beta[x].mean(),
            "y_name": y,
            "y": by_beta[y].mean(),
            "y_low": by_beta[y].min(),
            "y_high": by_beta[y].max(),
            "seeds": by_beta["seed"].nunique(),
        }
    ).reset_index()


def published(config: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """The points that the paper prints for a panel of errors; none but on MNIST."""
    if config["data"]["name"] != "mnist":
        return {}
    if config["K"] == 256:
        errors = {"error_mc": {paper.BEST_BETA: paper.TABLE_1["vib"]}}
    else:
        errors = {
            "error_mc": {beta: error_mc for beta, (error_mc, _) in paper.FIGURE_2.items()},
            "error_1": {beta: error_1 for beta, (_, error_1) in paper.FIGURE_2.items()},
        }
    return {
        label: pd.DataFrame(
            [
                {"beta": beta, "x_name": "beta", "x": beta, "y_name": quantity, "y": error}
                for beta, error in errors[quantity].items()
            ]
        )
        for label, (quantity, _) in PUBLISHED.items()
        if quantity in errors
    }


def draw_curve(axes: Axes, numbers: pd.DataFrame, label: str, look: dict[str, Any]) -> None:
    """Draw a line and, with several seeds, its band; both stop at the break before x = 0."""
    at_break = np.flatnonzero(np.diff(numbers["x"] <= 0)) + 1
    x, y, low, high = (
        np.insert(numbers[column].to_numpy(), at_break, np.nan)
        for column in ("x", "y", "y_low", "y_high")
    )
    axes.plot(x, y, label=label, **look)
    if (numbers["seeds"] > 1).any():
        # The edge makes a bar of the band at x = 0, which has no width.
        axes.fill_between(x, low, high, color=look["color"], alpha=0.25, linewidth=1)


def percent(error: float) -> str:
    """An error as a percentage."""
    return f"{100 * error:g}%"


def in_mathtext(value: float) -> str:
    """A number in scientific notation, a factor of 1 left out; 0 is 0."""
    if value == 0:
        return "$0$"
    mantissa, exponent = f"{value:e}".split("e")
    factor = "" if float(mantissa) == 1 else rf"{float(mantissa):g} \times "
    return f"${factor}10^{{{int(exponent)}}}$"


def log_axis(
    axes: Axes, name: str, values: npt.ArrayLike, *, label: Callable[[float], str] = in_mathtext
) -> None:
    """Make the x or y axis logarithmic for values, with a place for 0 where they hold it.

    That place is a decade before the smallest positive value, after a break; a rate that rounding
    took below 0 stands there too. Ticks are whole decades.
    """
    values = np.asarray(values, np.float64)
    smallest, largest = values[values > 0].min(), values.max()
    zero = smallest / 10
    has_zero = bool((values <= 0).any())
    axis = {"x": axes.xaxis, "y": axes.yaxis}[name]
    scale = FuncScale(axis, (partial(exponent, zero=zero), power))
    axes.set(**{f"{name}scale": scale})
    decades = np.arange(math.ceil(math.log10(smallest)), math.floor(math.log10(largest)) + 1)
    labelled = decades[decades % math.ceil(len(decades) / MOST_TICKS) == 0]
    ticks = [0.0] * has_zero + [float(f"1e{decade}") for decade in labelled]
    axis.set_ticks(ticks, labels=[label(tick) for tick in ticks])
    axis.set_ticks(power(decades), minor=True)
    limits = (zero if has_zero else smallest) / MARGIN, largest * MARGIN
    axes.set(**{f"{name}lim": limits})  # last: ticks would move it
    if has_zero:
        mark_break(axes, name, math.sqrt(zero * smallest))


def exponent(value: npt.ArrayLike, *, zero: float) -> Array:
    """The decimal logarithm; of what is not positive, that of `zero`."""
    value = np.asarray(value, np.float64)
    return np.log10(np.where(value <= 0, zero, value))  # NaN, a gap in a line, stays


def power(exponent: npt.ArrayLike) -> Array:
    """Ten to the power of an exponent."""
    return 10.0 ** np.asarray(exponent, np.float64)


def mark_break(axes: Axes, name: str, position: float) -> None:
    """Interrupt the spine of the x or y axis by two strokes."""
    place, coordinates = {
        "x": ((position, 0), axes.get_xaxis_transform()),
        "y": ((0, position), axes.get_yaxis_transform()),
    }[name]
    axes.annotate(
        "//",
        place,
        xycoords=coordinates,
        ha="center",
        va="center",
        rotation=0 if name == "x" else 90,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0},
    )


def legend_note(measured: pd.DataFrame, config: dict[str, Any]) -> str:
    """How many samples the averages and how many seeds the lines and bands stand for."""
    seeds = measured["seed"].nunique()
    bands = f"mean and range of {seeds} seeds" if seeds > 1 else "one seed"
    return f"avg eval: {config['mc_samples']} samples\n{bands}"


# Figure 2


def first_seed(stored: list[StoredRun], beta: float) -> StoredRun:
    """The run of a beta that has the smallest seed."""
    found = [run for run in stored if run.record["config"]["beta"] == beta]
    if not found:
        raise RunError(f"no run with beta={beta:g}, {K2}")
    return min(found, key=lambda run: run.record["config"]["seed"])


def draw_embedding(axes: Axes, embedding: dict[str, npt.NDArray[Any]]) -> AxesImage:
    """Draw ellipses coloured by class over the classifier's entropy; returns the latter."""
    labels, means, cholesky = (embedding[name] for name in ("labels", "means", "cholesky"))
    x_limits, y_limits = limits(means, cholesky)
    image = axes.imshow(
        entropy_bits(embedding, pixel_centres(*x_limits), pixel_centres(*y_limits)),
        extent=(*x_limits, *y_limits),
        origin="lower",
        cmap=GREYS,
        vmin=0,
        vmax=CLASS_BITS,
    )
    axes.add_collection(ellipses(axes, means, cholesky, CLASS_COLORS[labels]), autolim=False)
    for digit in np.unique(labels):
        place = np.median(means[labels == digit], axis=0)
        outline = [withStroke(linewidth=1.5, foreground="white")]
        axes.annotate(str(digit), place, ha="center", va="center", path_effects=outline)
    axes.set_xlabel("$z_1$", labelpad=0)
    return image


def ellipses(
    axes: Axes, means: Array, cholesky: Array, colors: npt.NDArray[np.str_]
) -> EllipseCollection:
    """The ellipses that hold 95% of N(means, LL^T), L = cholesky."""
    # L = USV^T maps the circle where US maps it: semi-axes along the columns of U, long as S.
    directions, scales, _ = np.linalg.svd(cholesky)
    widths, heights = 2 * RADIUS_95 * scales.T
    return EllipseCollection(
        widths,
        heights,
        np.degrees(np.arctan2(directions[:, 1, 0], directions[:, 0, 0])),
        units="xy",
        offsets=means,
        offset_transform=axes.transData,
        edgecolors=colors,
        facecolors="none",
        linewidths=0.3,
        alpha=0.7,
    )


def limits(means: Array, cholesky: Array) -> Array:
    """Limits of both axes, equally far apart, beyond which `CUT` of the ellipses reach."""
    reach = RADIUS_95 * np.linalg.norm(cholesky, axis=-1)  # the row norms of L are the deviations
    low = np.quantile(means - reach, CUT, axis=0)
    high = np.quantile(means + reach, 1 - CUT, axis=0)
    half = 0.52 * (high - low).max()  # with a margin of 2%
    return (low + high)[:, None] / 2 + np.array([-half, half])


def pixel_centres(low: float, high: float) -> Array:
    """Where the pixels of an axis of the background stand."""
    return low + (high - low) * (np.arange(PIXELS) + 0.5) / PIXELS


def entropy_bits(embedding: dict[str, npt.NDArray[Any]], z_1: Array, z_2: Array) -> Array:
    """Entropy of q(y|z) = softmax(zW + b) in bits, a row per z_2 and a column per z_1."""
    z = np.stack(np.meshgrid(z_1, z_2), axis=-1)
    logits = z @ embedding["decoder_kernel"] + embedding["decoder_bias"]
    log_q = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return -np.sum(np.exp(log_q) * log_q, axis=-1) / math.log(2)


def entitle(axes: Axes, letter: str, record: Record) -> None:
    """Head a panel with beta and the run's errors, and the paper's below them in small."""
    beta, test = record["config"]["beta"], record["test"]
    ours = errors_in_mathtext(test["error_mc"], test["error_1"])
    axes.set_title(rf"({letter}) $\beta =$ {in_mathtext(beta)}" + f"\n{ours}", pad=11)
    if record["config"]["data"]["name"] == "mnist":
        axes.annotate(
            f"paper: {errors_in_mathtext(*paper.FIGURE_2[beta])}",
            (0.5, 1),
            (0, 3),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
        )


def errors_in_mathtext(error_mc: float, error_1: float) -> str:
    """Both errors, as the paper's captions have them."""
    return (
        rf"$\mathrm{{err}}_\mathrm{{mc}} = {100 * error_mc:.2f}\%$, "
        rf"$\mathrm{{err}}_1 = {100 * error_1:.2f}\%$"
    )


def embedding_numbers(
    panel: str, run: StoredRun, embedding: dict[str, npt.NDArray[Any]]
) -> pd.DataFrame:
    """What a panel shows: a row per image, the covariance's entries, the run's errors."""
    means, cholesky = embedding["means"], embedding["cholesky"]
    covariance = cholesky @ cholesky.swapaxes(-1, -2)
    config, test = run.record["config"], run.record["test"]
    return pd.DataFrame(
        {
            "panel": panel,
            "beta": config["beta"],
            "seed": config["seed"],
            "error_mc": test["error_mc"],
            "error_1": test["error_1"],
            "image": np.arange(len(means)),
            "label": embedding["labels"],
            "mean_1": means[:, 0],
            "mean_2": means[:, 1],
            "covariance_11": covariance[:, 0, 0],
            "covariance_12": covariance[:, 0, 1],
            "covariance_22": covariance[:, 1, 1],
        }
    )
