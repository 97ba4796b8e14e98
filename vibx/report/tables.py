"""Tables from records: Table 1, the choice of the regularisers' numbers, recipes side by side.

Every table is a data frame with units in the names of its columns, and files drawn from it.
Intervals are 95% intervals. Imports no jax.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from vibx import config, store
from vibx.report import published as paper
from vibx.report import statistics
from vibx.report.statistics import Interval
from vibx.store import RunError, StoredAttack, StoredRun

Models = dict[str, dict[int, StoredRun]]  # runs by model and seed
Wrong = npt.NDArray[np.bool_]  # whether an answer is wrong, [seeds, images]

NAMES = {
    "maximum_likelihood": "baseline",
    "dropout": "dropout, rate {rate:g}",
    "confidence_penalty": "confidence penalty, weight {weight:g}",
    "label_smoothing": "label smoothing, epsilon {epsilon:g}",
    "vib": "VIB, beta = {beta}",
}
AUDIT = ["check", "expected", "measured", "passed", "meaning"]
ARCHITECTURE = ("data", "encoder", "decoder", "K")
RECIPE = ("optimizer", "epochs", "batch_size", "mc_samples")
SIGNIFICANT = 0.05
BOOTSTRAP_SEED = 0
LATEX = (  # what plain text needs in LaTeX, in this order
    (r"[%&#_]", r"\\\g<0>"),
    (r"^-$", r"--"),
    (r"(?<!\w)-(?=\d)", r"$-$"),
    (r"\b1e(-?\d+)", r"$10^{\1}$"),
    (r"\b(beta|epsilon)\b", r"$\\\1$"),
    (r"[<>]", r"$\g<0>$"),
)


# Table 1


def table1(stored: list[StoredRun]) -> pd.DataFrame:
    """Table 1, a row per model in the paper's order: its test error, and its difference to VIB.

    `difference_points` is the model's error minus VIB's, with the interval of the crossed
    bootstrap over seeds and test images; `paired_t` is the test over seeds, `holm_p` Holm's
    adjustment of the larger p of the two.

    Raises:
      RunError: the runs are not those of Table 1, differ in more than the model, or lack
        predictions.
    """
    require_same(stored, ARCHITECTURE + RECIPE)
    found = by_model(stored, held_out="test")
    models = {objective_of(seeds): seeds for seeds in found.values()}
    if models.keys() != paper.TABLE_1.keys() or len(models) != len(found):
        raise RunError(
            f"Table 1 has one model for each of {', '.join(paper.TABLE_1)}; these runs are of "
            f"{'; '.join(found)}"
        )
    require_same_seeds(found)
    if len(models["vib"]) < 2:
        raise RunError("Table 1 compares models over seeds; train at least two of each")
    wrong = wrong_answers(models)
    rows = [error_columns(models[name], wrong[name]) for name in paper.TABLE_1]
    for name, row in zip(paper.TABLE_1, rows, strict=True):
        if name != "vib":
            row |= difference_columns(wrong[name], minus_vib=wrong["vib"])
    table = pd.DataFrame(rows)
    compared = table["paired_t_p"].notna()
    table.loc[compared, "holm_p"] = statistics.holm(larger_p(table[compared]))
    return table


def error_columns(seeds: dict[int, StoredRun], wrong: Wrong) -> dict[str, Any]:
    """A model's test error, and the published ones."""
    cfg = next(iter(seeds.values())).record["config"]
    published = paper.published_error(cfg)
    pereyra = paper.PEREYRA.get(cfg["objective"]["name"]) if published else None
    error = statistics.over_seeds(wrong.mean(axis=1))
    return {
        "model": model_name(cfg),
        **columns("error_mc", "percent", error.mean, error.interval),
        "seeds": error.seeds,
        "paper_percent": 100 * published[0] if published else None,
        "pereyra_percent": 100 * pereyra if pereyra else None,
    }


def difference_columns(wrong: Wrong, *, minus_vib: Wrong) -> dict[str, Any]:
    """A model's error minus VIB's, and its tests."""
    crossed = statistics.crossed_bootstrap(wrong, minus=minus_vib, seed=BOOTSTRAP_SEED)
    t = statistics.paired_t(wrong.mean(axis=1), minus=minus_vib.mean(axis=1))
    pairs = zip(wrong, minus_vib, strict=True)
    mcnemar = [statistics.mcnemar(this, against=vib) for this, vib in pairs]
    return {
        **columns("difference", "points", crossed.difference, crossed.interval),
        "crossed_p": crossed.p,
        **columns("paired_t", "points", t.difference, t.interval),
        "paired_t_p": t.p,
        "only_model_wrong": sum(test.only_this for test in mcnemar),
        "only_vib_wrong": sum(test.only_other for test in mcnemar),
        "mcnemar_min_p": min(test.p for test in mcnemar),
        "mcnemar_max_p": max(test.p for test in mcnemar),
    }


def larger_p(compared: pd.DataFrame) -> pd.Series:
    """The larger p of the two tests: below a level only where both are."""
    return compared[["paired_t_p", "crossed_p"]].max(axis=1)


def table1_note(table: pd.DataFrame) -> str:
    """Whether VIB is better, as the numbers of Table 1 have it: plain text in paragraphs."""
    compared = table[table["paired_t_p"].notna()]
    before = conclusion(compared, larger_p(compared))
    after = conclusion(compared, compared["holm_p"])
    survives = "the same holds" if after == before else after
    paragraphs = [
        f"Is VIB better? {before}. After Holm's correction for the {len(compared)} comparisons, "
        f"{survives}.",
        *(comparison(row) for row in compared.to_dict("records")),
        "What is paired: the runs of the same seed, which see the training images in the same "
        "order, and the test images, which are the same for all. The t test takes the seeds as a "
        "sample and these test images as given; the crossed bootstrap "
        f"({statistics.RESAMPLES:,} resamples) draws seeds and test images anew, the same ones for "
        f"both models. VIB counts as better or worse where both give p < {SIGNIFICANT}, and Holm's "
        "correction is of the larger p. The counts of images that one model alone gets wrong are "
        "sums over seeds; they and the exact McNemar test of each pair of runs only describe.",
    ]
    return "\n\n".join(paragraphs)


def conclusion(compared: pd.DataFrame, p_values: pd.Series) -> str:
    """VIB against each model in one sentence, without its full stop."""
    found = p_values < SIGNIFICANT
    higher = compared["difference_points"] > 0
    verdicts = {
        "better than": found & higher,
        "worse than": found & ~higher,
        "not distinguishable from": ~found,
    }
    said = [
        f"{verdict} {listed([short_name(model) for model in compared['model'][models]])}"
        for verdict, models in verdicts.items()
        if models.any()
    ]
    return f"VIB is {'; '.join(said)}"


def comparison(row: dict[Any, Any]) -> str:
    """What the note says of one model."""
    model = short_name(row["model"])
    return (
        f"{model[0].upper()}{model[1:]} minus VIB, in points: {cell(row, 'difference', 'points')}, "
        f"{p_text(row['crossed_p'])} (crossed bootstrap); {cell(row, 'paired_t', 'points')}, "
        f"{p_text(row['paired_t_p'])} (paired t); {p_text(row['holm_p'])} after Holm's correction. "
        f"Images that {model} alone gets wrong: {row['only_model_wrong']:.0f}, VIB alone: "
        f"{row['only_vib_wrong']:.0f}; McNemar's test seed by seed: {p_text(row['mcnemar_min_p'])} "
        f"to {p_text(row['mcnemar_max_p'])}."
    )


def write_table1(stored: list[StoredRun], output: Path) -> list[Path]:
    """Write table1.csv, table1.md and table1.tex; returns their paths."""
    table = table1(stored)
    note = table1_note(table)
    caption = (
        f"The models of the paper's Table 1 on {scale_text(stored[0])}. Error: on the test images, "
        f"VIB's with the average of {stored[0].record['config']['mc_samples']} samples of z; mean "
        f"of {table['seeds'].iloc[0]} seeds [95% t interval]. Paper and Pereyra et al. (2016): as "
        "published. Minus VIB: difference of the mean errors [95% interval over seeds and test "
        "images]."
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
    require_same(
        [run for stored in stored_by_experiment.values() for run in stored], ARCHITECTURE + RECIPE
    )
    rows = []
    for experiment, stored in stored_by_experiment.items():
        models = by_model(stored, held_out="validation")
        require_same_seeds(models)
        rows += [{"experiment": experiment, **value_columns(s)} for s in models.values()]
    table = pd.DataFrame(rows)
    error = table["validation_error_mc_percent"]
    table["best"] = error == error.groupby(table["experiment"]).transform("min")
    return table


def value_columns(seeds: dict[int, StoredRun]) -> dict[str, Any]:
    """The validation error of one value of a regulariser's number, and whether it is in use."""
    cfg = next(iter(seeds.values())).record["config"]
    objective = cfg["objective"]["name"]
    ((parameter, value),) = ((k, v) for k, v in cfg["objective"].items() if k != "name")
    in_use = yaml.safe_load(
        (config.directory("train") / "objective" / f"{objective}.yaml").read_text()
    )
    error = statistics.over_seeds([error_of(run, "validation") for run in seeds.values()])
    return {
        "model": model_name(cfg),
        "parameter": parameter,
        "value": value,
        **columns("validation_error_mc", "percent", error.mean, error.interval),
        "seeds": error.seeds,
        "in_use": value == float(in_use[parameter]),
    }


def write_selections(stored_by_experiment: dict[str, list[StoredRun]], output: Path) -> list[Path]:
    """Write selections.csv and selections.md; returns their paths."""
    table = selections(stored_by_experiment)
    first = next(iter(stored_by_experiment.values()))[0]
    images = first.record["validation"]["n"]
    caption = (
        f"Choice of the regularisers' numbers on {scale_text(first)}: error on {images:,} training "
        "images held out for validation, mean over seeds [95% t interval]."
    )
    header = ["model", "validation error, %", "seeds", ""]
    body = [
        [
            row["model"],
            cell(row, "validation_error_mc", "percent"),
            str(row["seeds"]),
            ", ".join(mark for mark in ("best", "in_use") if row[mark]).replace("_", " "),
        ]
        for row in table.to_dict("records")
    ]
    return [
        write(output / "selections.csv", csv(table)),
        write(output / "selections.md", markdown(header, body, caption=caption)),
    ]


# Recipes side by side


def recipes(stored_by_scale: dict[str, list[StoredRun]]) -> pd.DataFrame:
    """The test error of the same models by recipe, minus VIB's, and minus the first recipe's.

    A scale's name is in its columns' names. Differences are over the seeds that both have.

    Raises:
      RunError: the runs of a scale differ in their recipe, or any two in data or architecture.
    """
    require_same([run for stored in stored_by_scale.values() for run in stored], ARCHITECTURE)
    by_scale = {}
    for scale, stored in stored_by_scale.items():
        require_same(stored, RECIPE)
        by_scale[scale] = by_model(stored, held_out="test")
    models = {name: objective_of(s) for scale in by_scale.values() for name, s in scale.items()}
    in_order = sorted(models, key=lambda name: list(NAMES).index(models[name]))
    vib = {
        scale: next((seeds for seeds in found.values() if objective_of(seeds) == "vib"), {})
        for scale, found in by_scale.items()
    }
    rows = []
    for name in in_order:
        seeds_by_scale = {scale: by_scale[scale].get(name, {}) for scale in by_scale}
        row = {"model": name, **recipe_columns(seeds_by_scale)}
        for scale, seeds in seeds_by_scale.items():
            minus = {} if models[name] == "vib" else vib[scale]
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
    wrong = wrong_answers(
        {"model": {s: seeds[s] for s in common}, "vib": {s: vib[s] for s in common}}
    )
    crossed = statistics.crossed_bootstrap(wrong["model"], minus=wrong["vib"], seed=BOOTSTRAP_SEED)
    return {
        **columns(name, "points", crossed.difference, crossed.interval),
        f"{name}_p": crossed.p,
        f"{name}_seeds": len(common),
    }


def recipe_columns(seeds_by_scale: dict[str, dict[int, StoredRun]]) -> dict[str, Any]:
    """A model's error with each recipe, and the differences; empty where it was not trained."""
    errors = {
        scale: {seed: error_of(run, "test") for seed, run in seeds.items()}
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
        return {**columns(name, unit, None, None), f"{name}_seeds": 0}
    mean, interval, seeds = statistics.over_seeds(values)
    return {**columns(name, unit, mean, interval), f"{name}_seeds": seeds}


def write_recipes(stored_by_scale: dict[str, list[StoredRun]], output: Path) -> list[Path]:
    """Write recipes.csv and recipes.md; returns their paths."""
    table = recipes(stored_by_scale)
    recipe = {scale: recipe_text(stored[0]) for scale, stored in stored_by_scale.items()}
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
    return [
        write(output / "recipes.csv", csv(table)),
        write(output / "recipes.md", markdown(["model", *header.values()], body, caption=caption)),
    ]


# Runs by model and seed


def model_name(cfg: dict[str, Any]) -> str:
    """A model with its number: `dropout, rate 0.5`; `VIB, beta = 1e-3`."""
    beta = "0"
    if cfg["beta"]:
        beta = np.format_float_scientific(cfg["beta"], trim="-", exp_digits=1).replace("+", "")
    return NAMES[cfg["objective"]["name"]].format(**{**cfg["objective"], "beta": beta})


def short_name(model: str) -> str:
    """A model's name without its number."""
    return model.partition(",")[0]


def by_model(stored: list[StoredRun], *, held_out: str) -> Models:
    """Runs by the model's name, then by seed in ascending order.

    Raises:
      RunError: a run was not measured on the held-out images, or two have the same seed.
    """
    models: Models = {}
    for run in sorted(stored, key=lambda run: run.record["config"]["seed"]):
        if held_out not in run.record:
            raise RunError(f"{run.directory.name} has no {held_out} error")
        seeds = models.setdefault(model_name(run.record["config"]), {})
        other = seeds.setdefault(run.record["config"]["seed"], run)
        if other is not run:
            raise RunError(
                f"{other.directory.name} and {run.directory.name} are the same model and seed in "
                "this table; leave one out"
            )
    return models


def objective_of(seeds: dict[int, StoredRun]) -> str:
    """The objective that a model is trained with."""
    return next(iter(seeds.values())).record["config"]["objective"]["name"]


def error_of(run: StoredRun, held_out: str) -> float:
    """A run's Monte Carlo error, a fraction."""
    return run.record[held_out]["error_mc"]


def require_same(stored: list[StoredRun], keys: tuple[str, ...]) -> None:
    """Raise RunError unless all runs agree in these keys of their configuration."""
    first, *others = stored
    for run in others:
        for key in keys:
            if run.record["config"][key] != first.record["config"][key]:
                raise RunError(
                    f"{first.directory.name} and {run.directory.name} differ in {key}; they "
                    "do not belong in one table"
                )


def require_same_seeds(models: Models) -> None:
    """Raise RunError unless all models have the same seeds."""
    (first, seeds), *others = models.items()
    for name, other in others:
        if other.keys() != seeds.keys():
            raise RunError(f"{first} has seeds {list(seeds)}, {name} has {list(other)}")


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
    arrays = store.read_arrays(run.directory / store.PREDICTIONS)
    return arrays["labels"], arrays["class_mc"]


# Text


# The audit of the attack


def audit(audits: list[StoredAttack]) -> pd.DataFrame:
    """A row per audited run and check."""
    return pd.DataFrame(
        [
            {
                "run_id": record["run_id"],
                "model": model_name(run.record["config"]),
                "images": record["attack"]["n"],
                "check": check["name"],
                **{column: check[column] for column in AUDIT[1:]},
            }
            for run, _, record in audits
            for check in record["checks"]
        ]
    )


def write_audit(audits: list[StoredAttack], output: Path) -> list[Path]:
    """Write audit.csv and audit.md, a table per run; returns their paths."""
    table = audit(audits)
    sections = []
    for _, checks in table.groupby("run_id", sort=False):
        passed = f"{checks['passed'].sum()} of {len(checks)} checks passed"
        images = f"the first {checks['images'].iloc[0]} test images"
        caption = f"**{checks['model'].iloc[0]}**, {images}: {passed}."
        rows = checks[AUDIT].assign(passed=checks["passed"].map({True: "yes", False: "**no**"}))
        body = rows.to_numpy().tolist()
        sections.append(markdown(AUDIT, body, caption=caption, rule="---"))
    return [
        write(output / "audit.csv", csv(table)),
        write(output / "audit.md", "\n".join(sections)),
    ]


# What the tables share


def columns(
    name: str, unit: str, fraction: float | None, interval: Interval | None
) -> dict[str, float | None]:
    """Columns of a fraction and its interval in percent or percentage points."""
    low, high = interval or (None, None)
    values = {f"{name}_{unit}": fraction, f"{name}_low_{unit}": low, f"{name}_high_{unit}": high}
    return {column: None if value is None else 100 * value for column, value in values.items()}


def number(value: float | None) -> str:
    """Two decimals; a dash where there is none."""
    return "-" if value is None or np.isnan(value) else f"{value:z.2f}"


def cell(row: dict[Any, Any], name: str, unit: str) -> str:
    """A value with its interval, if it has one: `1.21 [1.17, 1.25]`."""
    value, low, high = (number(row[f"{name}{part}_{unit}"]) for part in ("", "_low", "_high"))
    return value if low == "-" else f"{value} [{low}, {high}]"


def with_seeds(row: dict[Any, Any], name: str, unit: str) -> str:
    """A value with its interval and its number of seeds."""
    seeds = row[f"{name}_seeds"]
    return f"{cell(row, name, unit)} ({seeds})" if seeds else "-"


def p_text(p: float) -> str:
    """A p of two digits; those below 0.001 are not told apart."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def recipe_text(run: StoredRun) -> str:
    """A run's recipe: `fast, 15 epochs`."""
    cfg = run.record["config"]
    return f"{cfg['optimizer']['name']}, {cfg['epochs']} epochs"


def scale_text(run: StoredRun) -> str:
    """What a table's runs have in common: data, K and recipe."""
    cfg = run.record["config"]
    return f"{cfg['data']['name']}, K = {cfg['K']}, recipe {recipe_text(run)}"


def csv(table: pd.DataFrame) -> str:
    """Plain numbers of six digits."""
    return table.to_csv(index=False, float_format="%.6g")


def markdown(
    header: list[str], body: list[list[str]], *, caption: str, note: str = "", rule: str = "---:"
) -> str:
    """A Markdown table between its caption and its note; `rule` aligns all but the first column."""
    rules = ["---", *[rule] * (len(header) - 1)]
    lines = [f"| {' | '.join(row)} |" for row in (header, rules, *body)]
    return "\n\n".join(filter(None, (caption, "\n".join(lines), note))) + "\n"


def latex(header: list[str], body: list[list[str]], *, caption: str, note: str) -> str:
    """A LaTeX table with its caption above and its note below; needs booktabs alone."""
    head, *rows = (" & ".join(map(escape, row)) + r" \\" for row in (header, *body))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}}}",
        r"\label{tab:table1}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        "",
        r"\medskip\raggedright",
        escape(note),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Plain text in LaTeX's spelling."""
    for pattern, replacement in LATEX:
        text = re.sub(pattern, replacement, text)
    return text


def write(path: Path, content: str) -> Path:
    """Write a file, whole, into a directory that may not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store.write_whole(path, content.encode())
    return path
