"""Table 1's models with the author's 200 epochs and with the fast recipe, side by side."""

from typing import Any

import pandas as pd

from vibx.report import runs, statistics, tables
from vibx.report.drawings import Drawing, Files, Source
from vibx.store import StoredRun


def draw(*sources: Source) -> Files:
    """Draw recipes.csv and recipes.md."""
    return side_by_side("recipes", {source.scale: source.found["table1"] for source in sources})


def side_by_side(name: str, stored_by_scale: dict[str, list[StoredRun]]) -> Files:
    """Draw the table of `recipes` under a name."""
    table = recipes(stored_by_scale)
    recipe = {scale: runs.recipe_text(stored[0]) for scale, stored in stored_by_scale.items()}
    first, *others = recipe
    header = {
        (f"error_mc_{scale}", "percent"): f"{scale} ({text}): error, %"
        for scale, text in recipe.items()
    }
    header |= {(f"minus_vib_{scale}", "points"): f"{scale}: minus VIB, points" for scale in recipe}
    for scale in others:
        header[f"{scale}_minus_{first}", "points"] = f"{scale} minus {first}, points"
    body = [
        [row["model"], *(with_seeds(row, *column) for column in header)]
        for row in table.to_dict("records")
    ]
    caption = (
        "Test error by recipe: mean over seeds [95% t interval] (number of seeds). "
        "Differences are over the seeds that both have; minus VIB: [95% interval over seeds and "
        "test images], as in Table 1."
    )
    text = tables.markdown(["model", *header.values()], body, caption=caption)
    return tables.files(name, csv=tables.csv(table), md=text)


DRAWING = Drawing("Recipes", experiments=("table1",), draw=draw, compared=("paper", "fast"))


def recipes(stored_by_scale: dict[str, list[StoredRun]]) -> pd.DataFrame:
    """The test error of the same models by recipe, minus VIB's, and minus the first recipe's.

    A scale's name is in its columns' names. Differences are over the seeds that both have.

    Raises:
      RunError: the runs of a scale differ in their recipe, or any two in data or architecture.
    """
    everything = [run for stored in stored_by_scale.values() for run in stored]
    runs.require_same(everything, but=runs.OF_MODEL | runs.OF_RECIPE)
    by_scale = {}
    for scale, stored in stored_by_scale.items():
        runs.require_same(stored, but=runs.OF_MODEL)
        by_scale[scale] = runs.by_model(stored, held_out="test")
    objectives = {
        name: runs.objective_of(seeds)
        for models in by_scale.values()
        for name, seeds in models.items()
    }
    order = {objective: position for position, objective in enumerate(runs.NAMES)}
    rows = []
    for name in sorted(objectives, key=lambda name: order.get(objectives[name], len(order))):
        seeds_by_scale = {scale: by_scale[scale].get(name, {}) for scale in by_scale}
        row = {"model": name, **error_columns(seeds_by_scale)}
        for scale, seeds in seeds_by_scale.items():
            vib = (s for other, s in by_scale[scale].items() if objectives[other] == "vib")
            minus = {} if objectives[name] == "vib" else next(vib, {})
            row |= minus_vib_columns(f"minus_vib_{scale}", seeds, minus)
        rows.append(row)
    return pd.DataFrame(rows)


def minus_vib_columns(
    name: str, seeds: dict[int, StoredRun], vib: dict[int, StoredRun]
) -> dict[str, Any]:
    """A model's error minus VIB's with the same recipe, as in Table 1, over two seeds or more."""
    common = sorted(seeds.keys() & vib.keys())
    if len(common) < 2:
        return estimate_columns(name, "points", [])
    wrong = runs.wrong_answers(
        {"model": {s: seeds[s] for s in common}, "vib": {s: vib[s] for s in common}}
    )
    crossed = statistics.crossed_bootstrap(
        wrong["model"], minus=wrong["vib"], seed=statistics.BOOTSTRAP_SEED
    )
    return {
        **tables.columns(name, "points", crossed.difference, crossed.interval),
        f"{name}_p": crossed.p,
        f"{name}_seeds": len(common),
    }


def error_columns(seeds_by_scale: dict[str, dict[int, StoredRun]]) -> dict[str, Any]:
    """A model's error with each recipe, and the differences; empty where it was not trained."""
    errors = {
        scale: {seed: runs.error_of(run, "test") for seed, run in seeds.items()}
        for scale, seeds in seeds_by_scale.items()
    }
    row: dict[str, Any] = {}
    for scale, by_seed in errors.items():
        row |= estimate_columns(f"error_mc_{scale}", "percent", list(by_seed.values()))
    first, *others = errors
    for scale in others:
        common = errors[scale].keys() & errors[first].keys()
        changes = [errors[scale][seed] - errors[first][seed] for seed in common]
        row |= estimate_columns(f"{scale}_minus_{first}", "points", changes)
    return row


def estimate_columns(name: str, unit: str, values: list[float]) -> dict[str, Any]:
    """The mean of a value per seed, its interval, and the number of seeds, which may be 0."""
    if not values:
        return {**tables.columns(name, unit, None, None), f"{name}_seeds": 0}
    mean, interval, seeds = statistics.over_seeds(values)
    return {**tables.columns(name, unit, mean, interval), f"{name}_seeds": seeds}


def with_seeds(row: dict[Any, Any], name: str, unit: str) -> str:
    """A value with its interval and its number of seeds."""
    seeds = row[f"{name}_seeds"]
    return f"{tables.cell(row, name, unit)} ({seeds})" if seeds else "-"
