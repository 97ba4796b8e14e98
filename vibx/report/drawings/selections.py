"""How numbers of regularisers and of a recipe were chosen: errors on validation images."""

from functools import partial
from typing import Any

import pandas as pd

from vibx.experiments import expand
from vibx.report import runs, statistics, tables
from vibx.report.drawings import Drawing, Files, Source
from vibx.store import StoredRun


def draw(source: Source) -> Files:
    """Draw selections.csv and selections.md."""
    table = selections(source.found, scale=source.scale)
    first = next(iter(source.found.values()))[0]
    caption = (
        f"Choice of numbers on {runs.setting_text(first, scale=source.scale)}: error on "
        f"{first.record['validation']['n']:,} training images held out for validation, mean over "
        "seeds [95% t interval]."
    )
    header = ["model", "recipe", "validation error, %", "seeds", ""]
    body = [
        [
            row["model"],
            row["recipe"],
            tables.cell(row, "validation_error_mc", "percent"),
            str(row["seeds"]),
            ", ".join(mark for mark in ("best", "in_use") if row[mark]).replace("_", " "),
        ]
        for row in table.to_dict("records")
    ]
    text = tables.markdown(header, body, caption=caption)
    return tables.files("selections", csv=tables.csv(table), md=text)


DRAWING = Drawing("Selections", experiments=tuple(runs.SELECTIONS), draw=draw)


def selections(found: dict[str, list[StoredRun]], *, scale: str) -> pd.DataFrame:
    """The validation error of every value that was tried: the best, and the one in use.

    `best` marks an experiment's smallest mean, `in_use` the value that the table which it is for
    has at this scale.

    Raises:
      RunError: a run has no validation error, or runs of which the same choice is made differ in
        more than that choice and the seed.
    """
    by_group: dict[str, list[StoredRun]] = {}
    for experiment, stored in found.items():
        by_group.setdefault(runs.SELECTIONS[experiment].group, []).extend(stored)
    for group, stored in by_group.items():
        runs.require_same(stored, but={group, "seed"})
    rows = []
    for experiment, stored in found.items():
        selection = runs.SELECTIONS[experiment]
        named = partial(name_with, selection=selection)
        models = runs.by_model(stored, held_out="validation", name=named)
        runs.require_same_seeds(models)
        rows += [
            {"experiment": experiment, "model": model, **value_columns(seeds, selection, scale)}
            for model, seeds in models.items()
        ]
    table = pd.DataFrame(rows)
    error = table["validation_error_mc_percent"]
    table["best"] = error == error.groupby(table["experiment"]).transform("min")
    return table


def name_with(cfg: dict[str, Any], *, selection: runs.Selection) -> str:
    """A model's name with the number that is chosen: `dropout, rate 0.1`."""
    group, number, _ = selection
    model = runs.short_name(runs.model_name(cfg))
    return f"{model}, {number.replace('_', ' ')} {cfg[group][number]:g}"


def value_columns(
    seeds: dict[int, StoredRun], selection: runs.Selection, scale: str
) -> dict[str, Any]:
    """The validation error with one value of a number, and whether it is in use."""
    group, number, table = selection
    run = next(iter(seeds.values()))
    choice = run.record["config"][group]
    value = choice[number]
    in_table = [getattr(cfg, group) for cfg in expand(table, scale=scale)]
    error = statistics.over_seeds([runs.error_of(run, "validation") for run in seeds.values()])
    return {
        "recipe": runs.recipe_text(run),
        "parameter": number,
        "value": value,
        **tables.columns("validation_error_mc", "percent", error.mean, error.interval),
        "seeds": error.seeds,
        "in_use": value in [getattr(c, number) for c in in_table if c.name == choice["name"]],
    }
