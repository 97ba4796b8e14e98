"""What figures share: style, logarithmic axes with a place for zero, curves with bands, files.

Leaves matplotlib's global state as it found it.
"""

import io
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.scale import FuncScale

Array = npt.NDArray[np.float64]
Look = dict[str, Any]

in_style = matplotlib.rc_context(fname=Path(__file__).with_name("vibx.mplstyle"))

WIDTH = 5.5  # inches, the paper's column
SMALL = 6.5  # points
FOOTER = 5.0  # points
MARGIN = 1.6  # factor between the outermost values and the ends of a log axis
MOST_TICKS = 6  # labelled on a log axis, beside 0
HOLLOW: Look = {"markerfacecolor": "none", "markersize": 5}  # seen behind other markers
REFERENCE: Look = {"color": "0.5", "linewidth": 0.6, "zorder": 1}
COLUMNS = ["panel", "curve", "beta", "x_name", "x", "y_name", "y", "y_low", "y_high", "seeds"]


def lay_out(figure: Figure) -> None:
    """Place the panels, once and for all: whatever is drawn of the figure then looks the same."""
    FigureCanvasAgg(figure)  # keeps a renderer, and with it what texts measure, for all passes
    engine = ConstrainedLayoutEngine(compress=True)
    before = np.zeros((len(figure.axes), 4))
    for _ in range(5):  # panels of a fixed aspect settle last
        engine.execute(figure)
        placed = np.array([axes.get_position().bounds for axes in figure.axes])
        if np.allclose(placed, before, rtol=0, atol=1e-3):  # of the figure: half a point
            break
        before = placed


@in_style
def files(name: str, figure: Figure, plotted: pd.DataFrame, *, scale: str) -> dict[str, bytes]:
    """A figure as <name>.pdf and .png with its scale in a corner, what it plots as .csv.

    The same records give the same bytes: the PDF goes without its date.
    """
    footer: Look = {"ha": "right", "va": "bottom", "fontsize": FOOTER, "color": "0.4"}
    figure.text(0.995, 0.003, f"scale: {scale}", **footer)
    return {
        f"{name}.pdf": rendered(figure, format="pdf", metadata={"CreationDate": None}),
        f"{name}.png": rendered(figure, format="png"),
        f"{name}.csv": plotted.to_csv(index=False).encode(),
    }


def rendered(figure: Figure, **options: Any) -> bytes:
    """The bytes of a figure's file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


# Curves


def curve(measured: pd.DataFrame, *, x: str, y: str) -> pd.DataFrame:
    """A curve's points in the order of beta: means over the seeds, and the range of y."""
    by_beta = measured.astype({y: float}).groupby("beta", dropna=False)
    return pd.DataFrame(
        {
            "x_name": x,
            "x": by_beta[x].mean(),
            "y_name": y,
            "y": by_beta[y].mean(),
            "y_low": by_beta[y].min(),
            "y_high": by_beta[y].max(),
            "seeds": by_beta.size(),
        }
    ).reset_index()


def draw_curve(
    axes: Axes, plotted: pd.DataFrame, label: str, look: Look, *, band: bool | None = None
) -> None:
    """Draw a line and its band, if not said otherwise that of several seeds.

    Both stop at the break before x = 0.
    """
    at_break = np.flatnonzero(np.diff(plotted["x"] <= 0)) + 1
    x, y, low, high = (
        np.insert(plotted[column].to_numpy(), at_break, np.nan)
        for column in ("x", "y", "y_low", "y_high")
    )
    axes.plot(x, y, label=label, **look)
    if (plotted["seeds"] > 1).any() if band is None else band:
        # The edge makes a bar of the band at x = 0, which has no width.
        axes.fill_between(x, low, high, color=look["color"], alpha=0.25, linewidth=1)


def percent(fraction: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * fraction:g}%"


def in_mathtext(value: float) -> str:
    """A number in scientific notation, a factor of 1 left out; 0 is 0."""
    if value == 0:
        return "$0$"
    mantissa, exponent = f"{value:e}".split("e")
    factor = "" if float(mantissa) == 1 else rf"{float(mantissa):g} \times "
    return f"${factor}10^{{{int(exponent)}}}$"


# Logarithmic axes


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
