"""Figure 2: posteriors of 1,000 test images in two dimensions."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from vibx import store
from vibx.report import published as paper
from vibx.report import runs, style
from vibx.report.drawings import Drawing, Files, Source
from vibx.report.style import Array, in_style
from vibx.store import Record, RunError, StoredRun

Arrays = dict[str, npt.NDArray[Any]]

RADIUS_95 = math.sqrt(-2 * math.log(0.05))  # of N(0, I) in two dimensions: chi-square's quantile
CUT = 0.005  # share of the ellipses that may leave Figure 2 at either end of an axis
PIXELS = 300  # of the entropy, along an axis
DIGIT = 0.06  # of an axis that a digit takes; nearer ones are left to the legend
GREYS = LinearSegmentedColormap.from_list("entropy", ["1.0", "0.63"])  # the colours show on all

# Any two are 0.12 apart or more in Oklab for normal, protan, deutan and tritan eyes, and 0.08
# from the background's greys; of matplotlib's own ten, two are 0.007 apart.
CLASS_COLORS = (
    *("#000000", "#e61919", "#7eb8f1", "#66ff33", "#aa4499"),
    *("#eb9947", "#1919e6", "#730d0d", "#7070ff", "#1d2e63"),
)


def draw(source: Source) -> Files:
    """Draw Figure 2."""
    return style.files("figure2", *figure2(source.found["figure2"]), scale=source.scale)


DRAWING = Drawing("Figure 2", experiments=("figure2",), draw=draw)


@in_style
def figure2(stored: list[StoredRun]) -> tuple[Figure, pd.DataFrame]:
    """Posteriors of 1,000 test images in two dimensions, at the paper's three betas.

    Each p(z|x) is drawn as the ellipse that holds 95% of it, coloured by the true class, over the
    entropy of q(y|z) in bits. Of several seeds the first is shown. Beyond ten classes, colours
    repeat.

    Returns:
      The figure and what it plots: per panel and image the mean and the covariance of p(z|x); the
      run's errors are fractions of the test images.

    Raises:
      RunError: runs that do not belong in one figure, a beta without a run, or a run without its
        embedding.
    """
    runs.require_panel(stored, runs.K2)
    chosen = [first_seed(stored, beta) for beta in paper.FIGURE_2]
    embeddings = [store.read_arrays(run, store.EMBEDDING) for run in chosen]
    classes = len(embeddings[0]["decoder_bias"])
    colors = np.resize(CLASS_COLORS, classes)
    figure = Figure(figsize=(style.WIDTH, 2.5))
    panels = figure.subplots(1, len(chosen))
    for letter, axes, run, embedding in zip("abc", panels, chosen, embeddings, strict=True):
        image = draw_embedding(axes, embedding, colors)
        set_title(axes, letter, run.record)
    panels[0].set_ylabel("$z_2$", labelpad=0)
    figure.colorbar(image, ax=panels, label="entropy of $q(y|z)$, bits", pad=0.02, aspect=25)
    figure.legend(
        [Line2D([], [], color=color, marker="o", ls="none") for color in colors],
        [str(digit) for digit in range(classes)],
        loc="outside lower center",
        ncols=min(classes, len(CLASS_COLORS)),
        handlelength=1,
        title="true class",
    )
    style.lay_out(figure)
    return figure, pd.concat(map(posteriors, "abc", chosen, embeddings), ignore_index=True)


def first_seed(stored: list[StoredRun], beta: float) -> StoredRun:
    """The run of a beta that has the smallest seed."""
    found = [run for run in stored if run.record["config"]["beta"] == beta]
    if not found:
        raise RunError(f"no run with beta={beta:g}, {runs.K2}")
    return min(found, key=lambda run: run.record["config"]["seed"])


def draw_embedding(axes: Axes, embedding: Arrays, colors: npt.NDArray[np.str_]) -> AxesImage:
    """Draw ellipses coloured by class over the classifier's entropy; returns the latter."""
    labels, means, cholesky = (embedding[name] for name in ("labels", "means", "cholesky"))
    x_limits, y_limits = limits(means, cholesky)
    image = axes.imshow(
        entropy_bits(embedding, pixel_centres(*x_limits), pixel_centres(*y_limits)),
        extent=(*x_limits, *y_limits),
        origin="lower",
        cmap=GREYS,
        vmin=0,
        vmax=math.log2(len(colors)),
    )
    axes.add_collection(ellipses(axes, means, cholesky, colors[labels]), autolim=False)
    digits = np.unique(labels)
    places = np.stack([np.median(means[labels == digit], axis=0) for digit in digits])
    apart = DIGIT * np.diff([x_limits, y_limits]).max()
    for digit, place in zip(digits, places, strict=True):
        if (np.linalg.norm(places - place, axis=1) < apart).sum() == 1:  # itself alone
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


def entropy_bits(embedding: Arrays, z_1: Array, z_2: Array) -> Array:
    """Entropy of q(y|z) = softmax(zW + b) in bits, a row per z_2 and a column per z_1."""
    z = np.stack(np.meshgrid(z_1, z_2), axis=-1)
    logits = z @ embedding["decoder_kernel"] + embedding["decoder_bias"]
    log_q = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return -np.sum(np.exp(log_q) * log_q, axis=-1) / math.log(2)


def set_title(axes: Axes, letter: str, record: Record) -> None:
    """Title a panel with beta and the run's errors, and the paper's below them in small."""
    beta, test = record["config"]["beta"], record["test"]
    ours = errors_in_mathtext(test["error_mc"], test["error_1"])
    axes.set_title(rf"({letter}) $\beta =$ {style.in_mathtext(beta)}" + f"\n{ours}", pad=11)
    if record["config"]["data"]["name"] == "mnist":
        axes.annotate(
            f"paper: {errors_in_mathtext(*paper.FIGURE_2[beta])}",
            (0.5, 1),
            (0, 3),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=style.SMALL,
        )


def errors_in_mathtext(error_mc: float, error_1: float) -> str:
    """Both errors, as the paper's captions have them."""
    return (
        rf"$\mathrm{{err}}_\mathrm{{mc}} = {100 * error_mc:.2f}\%$, "
        rf"$\mathrm{{err}}_1 = {100 * error_1:.2f}\%$"
    )


def posteriors(panel: str, run: StoredRun, embedding: Arrays) -> pd.DataFrame:
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
