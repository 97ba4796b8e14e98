"""Tables from records: Table 1, the choice of the regularisers' numbers, recipes side by side.

Every table is a data frame with units in the names of its columns, and files drawn from it.
Intervals are 95% intervals. Imports no jax.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from vibx import config, paper, runs, statistics
from vibx.runs import RunError, StoredRun
from vibx.statistics import Estimate, Interval

NAMES = {
    "maximum_likelihood": "baseline",
    "dropout": "dropout, rate {rate:g}",
    "confidence_penalty": "confidence penalty, weight {weight:g}",
    "label_smoothing": "label smoothing, epsilon {epsilon:g}",
    "vib": "VIB, beta = {beta}",
}
ARCHITECTURE = ("data", "encoder", "decoder", "K")
RECIPE = ("optimizer", "epochs", "batch_size", "mc_samples")
SIGNIFICANT = 0.05
BOOTSTRAP_SEED = 0


# Table 1


def table1(stored: list[StoredRun]) -> pd.DataFrame:
    """Table 1, a row per model in the paper's order: its test error, and its difference to VIB.

    `difference_points` is the model's error minus VIB's, with the interval of the crossed
    bootstrap over seeds and test images. `t_` is the paired t test over seeds, `holm_p` Holm's
    adjustment of the larger of the two tests' p.

    Raises:
      RunError: the runs are not those of Table 1, differ in more than the model, or lack
        predictions.
    """
    models = {objective_of(seeds): seeds for seeds in by_model(stored, held_out="test").values()}
    if len(stored) != sum(map(len, models.values())) or models.keys() != paper.TABLE_1.keys():
        found = ", ".join(by_model(stored, held_out="test"))
        raise RunError(f"Table 1 takes one model for each of {', '.join(NAMES)}; found {found}")
    require_same_seeds(models)
    require_same(stored, ARCHITECTURE + RECIPE)
    if len(models["vib"]) < 2:
        raise RunError("Table 1 compares models over seeds: train at least two seeds of each")
    wrong = wrong_answers(models)
    rows = []
    for objective in paper.TABLE_1:
        row = error_row(models[objective], wrong[objective])
        if objective != "vib":
            row |= difference_row(wrong[objective], vib=wrong["vib"])
        rows.append(row)
    table = pd.DataFrame(rows)
    compared = table["t_p"].notna()
    table.loc[compared, "holm_p"] = statistics.holm(larger_p(table[compared]))
    return table


def error_row(seeds: dict[int, StoredRun], wrong: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """A model's error, ours and those that are published."""
    cfg = next(iter(seeds.values())).record["config"]
    published = paper.published_error(cfg)
    pereyra = paper.PEREYRA.get(cfg["objective"]["name"]) if published else None
    return {
        "model": model_name(cfg),
        **columns(statistics.over_seeds(100 * wrong.mean(axis=1)), "error_mc", unit="percent"),
        "seeds": len(seeds),
        "paper_percent": 100 * published[0] if published else None,
        "pereyra_percent": 100 * pereyra if pereyra else None,
    }


def difference_row(
    wrong: npt.NDArray[np.bool_], *, vib: npt.NDArray[np.bool_]
) -> dict[str, float | None]:
    """A model's error minus VIB's in points, with its tests; [seeds, images] of wrong answers."""
    crossed = statistics.crossed_bootstrap(wrong, minus=vib, seed=BOOTSTRAP_SEED)
    over_seeds = statistics.paired_t(100 * wrong.mean(axis=1), minus=100 * vib.mean(axis=1))
    tests = [statistics.mcnemar(w, against=v) for w, v in zip(wrong, vib, strict=True)]
    return {
        "difference_points": 100 * crossed.difference,
        "difference_low_points": 100 * crossed.interval.low,
        "difference_high_points": 100 * crossed.interval.high,
        "crossed_p": crossed.p,
        "t_low_points": over_seeds.interval.low,
        "t_high_points": over_seeds.interval.high,
        "t_p": over_seeds.p,
        "only_model_wrong": sum(test.wrong_here for test in tests),
        "only_vib_wrong": sum(test.wrong_there for test in tests),
        "mcnemar_p_min": min(test.p for test in tests),
        "mcnemar_p_max": max(test.p for test in tests),
    }


def table1_note(table: pd.DataFrame) -> str:
    """Whether VIB is better, as the numbers of Table 1 have it: plain text in paragraphs."""
    compared = table[table["t_p"].notna()]
    before = conclusion(compared, larger_p(compared))
    after = conclusion(compared, compared["holm_p"])
    survives = "the same holds" if after == before else after
    return "\n\n".join(
        [
            f"Is VIB better? {before}. After Holm's correction for the {len(compared)} "
            f"comparisons: {survives}.",
            *(comparison(row) for row in compared.to_dict("records")),
            "What is paired: runs of the same seed, which see the training images in the same "
            "order, and the test images, which are the same for all. The t test takes the seeds as "
            "a sample and these test images as given. The crossed bootstrap "
            f"({statistics.RESAMPLES:,} resamples) draws both seeds and test images anew, the same "
            f"for both models. VIB counts as better or worse where both give p < {SIGNIFICANT}; "
            "Holm's correction is applied to the larger p. McNemar's test is of one pair of runs, "
            "and only describes.",
        ]
    )


def conclusion(compared: pd.DataFrame, p_values: Iterable[float]) -> str:
    """VIB against each model in one sentence, without its full stop."""
    groups: dict[str, list[str]] = {
        "better than": [],
        "worse than": [],
        "not distinguishable from": [],
    }
    better, worse, undecided = groups.values()
    for model, difference, p in zip(
        compared["model"], compared["difference_points"], p_values, strict=True
    ):
        group = undecided if p >= SIGNIFICANT else better if difference > 0 else worse
        group.append(short(model))
    said = [f"{verdict} {listed(models)}" for verdict, models in groups.items() if models]
    return f"VIB is {'; '.join(said)}"


def comparison(row: dict[Any, Any]) -> str:
    """The paragraph of the note about one model."""
    model = short(row["model"])
    mcnemar = p_range(row["mcnemar_p_min"], row["mcnemar_p_max"])
    return (
        f"{model[0].upper()}{model[1:]} minus VIB: {row['difference_points']:+.2f} points. "
        f"Crossed bootstrap over seeds and test images: {interval(row, 'difference', 'points')}, "
        f"{p_text(row['crossed_p'])}. Paired t over {row['seeds']} seeds: "
        f"{interval(row, 't', 'points')}, {p_text(row['t_p'])}. Holm: {p_text(row['holm_p'])}. "
        f"Over all seeds {row['only_model_wrong']:.0f} answers are wrong with {model} alone, "
        f"{row['only_vib_wrong']:.0f} with VIB alone (exact McNemar test, seed by seed: {mcnemar})."
    )


def write_table1(stored: list[StoredRun], output: Path) -> list[Path]:
    """Write table1.csv, table1.md and table1.tex; returns their paths."""
    table = table1(stored)
    note = table1_note(table)
    seeds = table["seeds"].iloc[0]
    caption = (
        f"Test error of Table 1's models ({scale_text(stored[0])}): mean of {seeds} seeds with "
        "its 95% t interval, beside the paper's and that of Pereyra et al. (2016). Model minus "
        "VIB in percentage points, with its 95% interval over seeds and test images."
    )
    header = ["model", "error, %", "paper, %", "Pereyra, %", "minus VIB, points"]
    body = [
        [
            row["model"],
            cell(row, "error_mc", "percent"),
            number(row["paper_percent"]),
            number(row["pereyra_percent"]),
            cell(row, "difference", "points"),
        ]
        for row in table.to_dict("records")
    ]
    return [
        write(output / "table1.csv", csv(table)),
        write(output / "table1.md", markdown(header, body, caption=caption, note=note)),
        write(output / "table1.tex", latex(header, body, caption=caption, note=note)),
    ]


# The choice of the regularisers' numbers


def selections(stored_by_experiment: dict[str, list[StoredRun]]) -> pd.DataFrame:
    """The validation error of every value that was tried: the best, and the one in use.

    `best` marks an experiment's smallest mean, `in_use` the value in conf/objective/*.yaml.

    Raises:
      RunError: a run has no validation error, or the runs differ in more than the model.
    """
    require_same([run for stored in stored_by_experiment.values() for run in stored])
    rows = []
    for experiment, stored in stored_by_experiment.items():
        models = by_model(stored, held_out="validation")
        require_same_seeds(models)
        for model, seeds in models.items():
            objective = next(iter(seeds.values())).record["config"]["objective"]
            (parameter,) = objective.keys() - {"name"}
            estimate = mean_error(seeds, held_out="validation")
            rows.append(
                {
                    "experiment": experiment,
                    "model": model,
                    "parameter": parameter,
                    "value": objective[parameter],
                    **columns(estimate, "validation_error_mc", unit="percent"),
                    "seeds": estimate.seeds,
                    "in_use": objective[parameter] == value_in_use(objective["name"], parameter),
                }
            )
    table = pd.DataFrame(rows)
    error = table["validation_error_mc_percent"]
    table["best"] = error == error.groupby(table["experiment"]).transform("min")
    return table


def value_in_use(objective: str, parameter: str) -> float:
    """What conf/objective has for a regulariser's number."""
    path = config.directory() / "objective" / f"{objective}.yaml"
    return float(yaml.safe_load(path.read_text())[parameter])


def write_selections(stored_by_experiment: dict[str, list[StoredRun]], output: Path) -> list[Path]:
    """Write selections.csv and selections.md; returns their paths."""
    table = selections(stored_by_experiment)
    first = next(iter(stored_by_experiment.values()))[0]
    held_out = first.record["config"]["data"]["validation"]
    caption = (
        f"Validation error ({scale_text(first)}) on the last {held_out:,} training images: mean "
        "over seeds with its 95% t interval."
    )
    body = [
        [
            row["model"],
            cell(row, "validation_error_mc", "percent"),
            str(row["seeds"]),
            ", ".join(["best"] * row["best"] + ["in use"] * row["in_use"]),
        ]
        for row in table.to_dict("records")
    ]
    header = ["model", "validation error, %", "seeds", ""]
    return [
        write(output / "selections.csv", csv(table)),
        write(output / "selections.md", markdown(header, body, caption=caption)),
    ]


# Recipes side by side


def recipes(stored_by_scale: dict[str, list[StoredRun]]) -> pd.DataFrame:
    """The test error of the same models by recipe, and the difference to the first recipe.

    A recipe's columns begin with its scale; the difference is over the seeds that both have.

    Raises:
      RunError: the runs of a scale differ in their recipe, or any in data or architecture.
    """
    require_same([run for stored in stored_by_scale.values() for run in stored], ARCHITECTURE)
    by_scale = {}
    for scale, stored in stored_by_scale.items():
        require_same(stored)
        by_scale[scale] = by_model(stored, held_out="test")
    names = {name: objective_of(s) for models in by_scale.values() for name, s in models.items()}
    rows = []
    for model in sorted(names, key=lambda name: (list(NAMES).index(names[name]), name)):
        row: dict[str, Any] = {"model": model}
        for scale, models in by_scale.items():
            row |= recipe_columns(scale, models.get(model, {}))
        first, *others = by_scale
        for scale in others:
            row |= change_columns(
                f"{scale}_minus_{first}",
                by_scale[scale].get(model, {}),
                minus=by_scale[first].get(model, {}),
            )
        rows.append(row)
    return pd.DataFrame(rows)


def recipe_columns(scale: str, seeds: dict[int, StoredRun]) -> dict[str, float | None]:
    """A model's error with one recipe; empty where it was not trained."""
    estimate = mean_error(seeds, held_out="test") if seeds else None
    return {
        **columns(estimate, f"{scale}_error_mc", unit="percent"),
        f"{scale}_seeds": len(seeds),
    }


def change_columns(
    name: str, seeds: dict[int, StoredRun], *, minus: dict[int, StoredRun]
) -> dict[str, float | None]:
    """A model's difference between two recipes over their common seeds."""
    common = sorted(seeds.keys() & minus.keys())
    changes = [error_of(seeds[s], "test") - error_of(minus[s], "test") for s in common]
    estimate = statistics.over_seeds(changes) if common else None
    return {**columns(estimate, name, unit="points"), f"{name}_seeds": len(common)}


def write_recipes(stored_by_scale: dict[str, list[StoredRun]], output: Path) -> list[Path]:
    """Write recipes.csv and recipes.md; returns their paths."""
    table = recipes(stored_by_scale)
    first, *others = stored_by_scale
    titles = {scale: recipe_text(stored[0]) for scale, stored in stored_by_scale.items()}
    header = [
        "model",
        *(f"{titles[scale]}: error, %" for scale in titles),
        *(f"{titles[scale]} minus {titles[first]}, points" for scale in others),
    ]
    body = [
        [
            row["model"],
            *(with_seeds(row, f"{s}_error_mc", "percent", row[f"{s}_seeds"]) for s in titles),
            *(
                with_seeds(row, f"{s}_minus_{first}", "points", row[f"{s}_minus_{first}_seeds"])
                for s in others
            ),
        ]
        for row in table.to_dict("records")
    ]
    caption = (
        "Test error by recipe: mean over seeds with its 95% t interval (number of seeds). "
        "Differences are over the seeds that both recipes have."
    )
    return [
        write(output / "recipes.csv", csv(table)),
        write(output / "recipes.md", markdown(header, body, caption=caption)),
    ]
