"""Runs by model and seed: which belong together, what they are called, what they get wrong."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vibx import config, store
from vibx.data import DataInfo
from vibx.store import Record, RunError, StoredRun

Models = dict[str, dict[int, StoredRun]]  # runs by model and seed
Wrong = npt.NDArray[np.bool_]  # whether an answer is wrong, [seeds, images]

# In the paper's order; a model that the paper does not have goes by the names in its configuration.
NAMES = {
    "maximum_likelihood": "baseline",
    "dropout": "dropout, rate {rate:g}",
    "confidence_penalty": "confidence penalty, weight {weight:g}",
    "label_smoothing": "label smoothing, epsilon {epsilon:g}",
    "vib": "VIB, beta = {beta}",
}
K256 = "objective=vib,K=256,bottleneck=diagonal,data.validation=0"
K2 = "objective=vib,K=2,bottleneck=full_covariance,decoder=linear,data.validation=0"
OF_MODEL = {"objective", "bottleneck", "marginal", "beta", "seed"}  # keys that make the model
OF_RECIPE = {"optimizer", "epochs", "batch_size", "mc_samples"}


class Selection(NamedTuple):
    """What an experiment chooses on validation images: a number of a choice, for a table."""

    group: str
    number: str
    table: str


SELECTIONS = {
    "select_dropout": Selection("objective", "rate", table="table1"),
    "select_penalty": Selection("objective", "weight", table="table1"),
    "select_smoothing": Selection("objective", "epsilon", table="table1"),
    "select_decay": Selection("optimizer", "weight_decay", table="table1_best"),
}


def data_info(run: StoredRun) -> DataInfo:
    """The shape of the run's images and the number of their classes."""
    return config.parse_config(run.record["config"]).data.info


def model_name(cfg: dict[str, Any]) -> str:
    """A model with its numbers: `dropout, rate 0.5`; `VIB, beta = 1e-3`."""
    parameters = {key: value for key, value in cfg["objective"].items() if key != "name"}
    objective = cfg["objective"]["name"]
    beta = scientific(cfg["beta"])
    if objective in NAMES:
        return NAMES[objective].format(**parameters, beta=beta)
    parts = [objective, *(f"{key} {value}" for key, value in parameters.items())]
    return ", ".join(parts if cfg["beta"] is None else [*parts, f"beta = {beta}"]).replace("_", " ")


def scientific(value: float | None) -> str:
    """A number as `1e-3`; none and zero as `0`."""
    if not value:
        return "0"
    return np.format_float_scientific(value, trim="-", exp_digits=1).replace("+", "")


def short_name(model: str) -> str:
    """A model's name without its numbers."""
    return model.partition(",")[0]


def objective_of(seeds: dict[int, StoredRun]) -> str:
    """The objective that a model is trained with."""
    return next(iter(seeds.values())).record["config"]["objective"]["name"]


def recipe_text(run: StoredRun) -> str:
    """A run's recipe: `fast, 15 epochs`."""
    cfg = run.record["config"]
    return f"{cfg['optimizer']['name']}, {cfg['epochs']} epochs"


def origin_text(run: StoredRun, *, scale: str) -> str:
    """What a table's runs have in common: data, K, scale and recipe."""
    return f"{setting_text(run, scale=scale)} (recipe {recipe_text(run)})"


def setting_text(run: StoredRun, *, scale: str) -> str:
    """What runs of several recipes have in common: data, K and scale."""
    cfg = run.record["config"]
    return f"{cfg['data']['name']}, K = {cfg['K']}, scale {scale}"


def by_model(
    stored: list[StoredRun],
    *,
    held_out: str,
    name: Callable[[dict[str, Any]], str] = model_name,
) -> Models:
    """Runs by the model's name, then by seed in ascending order.

    Raises:
      RunError: a run was not measured on the held-out images, or two have the same seed.
    """
    models: Models = {}
    for run in sorted(stored, key=lambda run: run.record["config"]["seed"]):
        if held_out not in run.record:
            raise RunError(f"{run.directory.name} has no {held_out} error")
        seeds = models.setdefault(name(run.record["config"]), {})
        other = seeds.setdefault(run.record["config"]["seed"], run)
        if other is not run:
            raise RunError(
                f"{other.directory.name} and {run.directory.name} are the same model and seed in "
                "this table; leave one out"
            )
    return models


def different_keys(one: Record, other: Record) -> set[str]:
    """Keys whose values differ."""
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def require_same(stored: list[StoredRun], *, but: set[str]) -> None:
    """Raise RunError unless all runs agree in their configuration but for these keys."""
    first, *others = (run.record for run in stored)
    for record in others:
        if keys := different_keys(record["config"], first["config"]) - but:
            raise RunError(
                f"{first['run_id']} and {record['run_id']} differ in {', '.join(sorted(keys))}; "
                "they do not belong together"
            )


def require_same_seeds(models: Models) -> None:
    """Raise RunError unless all models have the same seeds."""
    (first, seeds), *others = models.items()
    for name, other in others:
        if other.keys() != seeds.keys():
            raise RunError(f"{first} has seeds {list(seeds)}, {name} has {list(other)}")


def require_panel(stored: list[StoredRun], conditions: str) -> None:
    """Refuse runs that would make a panel other than it looks.

    Raises:
      RunError: no runs, a run that fails the `conditions` (as `store.matching` reads them), runs
        that differ in more than beta and seed, or a beta that lacks a seed of the others.
    """
    if not stored:
        raise RunError(f"no runs with {conditions}")
    for run in stored:
        if not store.matching([run.record], conditions):
            raise RunError(f"{run.record['run_id']}: not a run with {conditions}")
    require_same(stored, but={"beta", "seed"})
    by_beta: dict[float, set[int]] = {}
    for run in stored:
        by_beta.setdefault(run.record["config"]["beta"], set()).add(run.record["config"]["seed"])
    for beta in sorted(by_beta):
        if missing := set.union(*by_beta.values()) - by_beta[beta]:
            listed = ", ".join(map(str, sorted(missing)))
            raise RunError(f"beta={beta:g} lacks seed {listed}, which another beta has")


def train_objective_bits(run: StoredRun) -> float:
    """Equation 17 on the training images with the run's own beta, in bits."""
    train = run.record["train"]
    return train["distortion_bits"] + run.record["config"]["beta"] * train["rate_bits"]


def error_of(run: StoredRun, held_out: str) -> float:
    """A run's Monte Carlo error, a fraction."""
    return run.record[held_out]["error_mc"]


def wrong_answers(models: Models) -> dict[str, Wrong]:
    """Whether each test image is wrong with the average of all samples, by model.

    Raises:
      RunError: a run has no predictions, or not for the same images.
    """
    read = {name: [predictions(run) for run in seeds.values()] for name, seeds in models.items()}
    ((labels, _), *_), *_ = read.values()
    for name, seeds in models.items():
        for run, (own, _) in zip(seeds.values(), read[name], strict=True):
            if not np.array_equal(own, labels):
                raise RunError(f"{run.directory.name}: its test images are not those of the others")
    return {name: np.stack([c != labels for _, c in pairs]) for name, pairs in read.items()}


def predictions(run: StoredRun) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """The labels of a run's test images, and the classes that it predicts."""
    arrays = store.read_arrays(run, store.PREDICTIONS)
    return arrays["labels"], arrays["class_mc"]
