"""How the numbers of Table 1's regularisers were chosen: errors on validation images."""

from typing import Any

import pandas as pd
import yaml

from vibx import config
from vibx.report import runs, statistics, tables
from vibx.report.drawings import Drawing, Files, Source
from vibx.store import StoredRun


def draw(source: Source) -> Files:
    """Draw selections.csv and selections.md."""
    table = selections(source.found)
    first = next(iter(source.found.values()))[0]
    caption = (
        "Choice of the regularisers' numbers on "
        f"{runs.origin_text(first, scale=source.scale)}: error on "
        f"{first.record['validation']['n']:,} training images held out for validation, mean over "
        "seeds [95% t interval]."
    )
    header = ["model", "validation error, %", "seeds", ""]
    body = [
        [
            row["model"],
            tables.cell(row, "validation_error_mc", "percent"),
            str(row["seeds"]),
            ", ".join(mark for mark in ("best", "in_use") if row[mark]).replace("_", " "),
        ]
        for row in table.to_dict("records")
    ]
    text = tables.markdown(header, body, caption=caption)
    return tables.files("selections", csv=tables.csv(table), md=text)


DRAWING = Drawing(
    "Selections", experiments=("select_dropout", "select_penalty", "select_smoothing"), draw=draw
)


def selections(found: dict[str, list[StoredRun]]) -> pd.DataFrame:
    """The validation error of every value that was tried: the best, and the one in use.

    `best` marks an experiment's smallest mean, `in_use` the value in conf/train/objective/*.yaml.

    Raises:
      RunError: a run has no validation error, or the runs differ in more than the model.
    """
    runs.require_same([run for stored in found.values() for run in stored], but=runs.OF_MODEL)
    rows = []
    for experiment, stored in found.items():
        models = runs.by_model(stored, held_out="validation")
        runs.require_same_seeds(models)
        rows += [{"experiment": experiment, **value_columns(s)} for s in models.values()]
    table = pd.DataFrame(rows)
    error = table["validation_error_mc_percent"]
    table["best"] = error == error.groupby(table["experiment"]).transform("min")
    return table


def value_columns(seeds: dict[int, StoredRun]) -> dict[str, Any]:
    """The validation error of one value of a regulariser's number, and whether it is in use."""
    cfg = next(iter(seeds.values())).record["config"]
    ((parameter, value),) = ((k, v) for k, v in cfg["objective"].items() if k != "name")
    chosen = config.directory("train") / "objective" / f"{cfg['objective']['name']}.yaml"
    error = statistics.over_seeds([runs.error_of(run, "validation") for run in seeds.values()])
    return {
        "model": runs.model_name(cfg),
        "parameter": parameter,
        "value": value,
        **tables.columns("validation_error_mc", "percent", error.mean, error.interval),
        "seeds": error.seeds,
        "in_use": value == float(yaml.safe_load(chosen.read_text())[parameter]),
    }
