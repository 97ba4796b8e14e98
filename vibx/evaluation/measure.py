"""What a measure is, and all there are: every module of `measures/` defines one as `MEASURE`.

Imports no jax, so that a record's readers know its labels and units.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from vibx.evaluation import measures as package
from vibx.information import bits

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class PredictiveSamples(NamedTuple):
    """What a model says of one image, in nats. The arrays bring their methods: no jax is needed.

    Attributes:
        log_q: log q(y|z) for samples z of p(z|x); the first of them is "1-shot".
        log_p: Log of the probabilities averaged over the samples (section 4.1.1):
            p(y|x) = 1/S sum_s q(y|z_s).
        p: These probabilities.
        logits_at_mean: Of q(y|z) with z at the mean of p(z|x).
        cross_entropy: -log q(y|z) of the true class, for each sample.
        rate: KL[p(z|x), r(z)]; None of a deterministic model.
        label: The true class.
    """

    log_q: "Float[Array, 'samples classes']"
    log_p: "Float[Array, 'classes']"
    p: "Float[Array, 'classes']"
    logits_at_mean: "Float[Array, 'classes']"
    cross_entropy: "Float[Array, 'samples']"
    rate: "Float[Array, ''] | None"
    label: "Int[Array, '']"


def mean(values: npt.ArrayLike, labels: npt.NDArray[np.integer]) -> float:
    """Mean over images, in float64."""
    return float(np.asarray(values, np.float64).mean())


def wrong(classes: npt.NDArray[np.integer], labels: npt.NDArray[np.integer]) -> float:
    """The fraction of the images whose predicted class is not the true one."""
    return mean(classes != labels, labels)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A quantity of a model on a set of images.

    Attributes:
        name: Its key in records; ends with its unit unless it is a fraction.
        label: In a run's summary; `{mc_samples}` stands for the number of samples.
        order: Its place among the others, smaller first.
        unit: "fraction", shown in percent, or "bits": then `over_images` is in nats.
        smaller_is_better: Which models it prefers; None for a quantity that prefers none.
        per_image: From what the model says of one image to its value, in nats or as a class;
            None where the model has none.
        over_images: From the values of all images and their labels to the record's number.
        column: Its header in tables of runs; "" leaves it out of them.
        history: Whether history.csv has it, of the held-out images.
        stored_as: The name of its values in predictions.npz; None leaves them out.
    """

    name: str
    label: str
    order: int
    unit: Literal["fraction", "bits"]
    smaller_is_better: bool | None
    per_image: Callable[[PredictiveSamples], Any]
    over_images: Callable[[Any, npt.NDArray[np.integer]], float] = mean
    column: str = ""
    history: bool = True
    stored_as: str | None = None

    def of_images(self, values: Any, labels: npt.NDArray[np.integer]) -> float | None:
        """The record's number, in the measure's unit, from the values of all images."""
        if values is None:
            return None
        found = self.over_images(values, labels)
        return bits(found) if self.unit == "bits" else found

    def shown(self, value: float | None) -> str:
        """The number as a table shows it; a dash where there is none."""
        if value is None:
            return "-"
        return f"{value:.2%}" if self.unit == "fraction" else f"{value:.4g}"


@functools.cache
def measures() -> tuple[Measure, ...]:
    """All measures, in their order."""
    modules = pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    found = [importlib.import_module(module.name).MEASURE for module in modules]
    return tuple(sorted(found, key=lambda measure: measure.order))
