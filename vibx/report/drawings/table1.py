"""Table 1: the regularisers' test errors, and whether VIB is better."""

from typing import Any

import pandas as pd

from vibx.report import published as paper
from vibx.report import runs, statistics, tables
from vibx.report.drawings import Drawing, Files, Source
from vibx.store import RunError, StoredRun

SIGNIFICANT = 0.05


def draw(source: Source) -> Files:
    """Draw table1.csv, table1.md and table1.tex."""
    stored = source.found["table1"]
    table = table1(stored)
    caption = (
        f"The models of the paper's Table 1 on {runs.origin_text(stored[0], scale=source.scale)}. "
        "Error: on the test images, VIB's with the average of "
        f"{stored[0].record['config']['mc_samples']} samples of z; mean of "
        f"{table['seeds'].iloc[0]} seeds [95% t interval]. Paper and Pereyra et al. (2016): as "
        "published. Minus VIB: difference of the mean errors [95% interval over seeds and test "
        "images]."
    )
    header = ["model", "error, %", "paper, %", "Pereyra, %", "minus VIB, points"]
    body = [
        [
            row["model"],
            tables.cell(row, "error_mc", "percent"),
            tables.number(row["paper_percent"]),
            tables.number(row["pereyra_percent"]),
            tables.cell(row, "difference", "points"),
        ]
        for row in table.to_dict("records")
    ]
    note = conclusions(table)
    return tables.files(
        "table1",
        csv=tables.csv(table),
        md=tables.markdown(header, body, caption=caption, note=note),
        tex=tables.latex(header, body, caption=caption, note=note, label="table1"),
    )


DRAWING = Drawing("Table 1", experiments=("table1",), draw=draw)


def table1(stored: list[StoredRun]) -> pd.DataFrame:
    """Table 1, a row per model in the paper's order: its test error, and its difference to VIB.

    `difference_points` is the model's error minus VIB's, with the interval of the crossed
    bootstrap over seeds and test images; `paired_t` is the test over seeds, `holm_p` Holm's
    adjustment of the larger p of the two.

    Raises:
      RunError: the runs are not those of Table 1, differ in more than the model, or lack
        predictions.
    """
    runs.require_same(stored, but=runs.OF_MODEL)
    found = runs.by_model(stored, held_out="test")
    models = {runs.objective_of(seeds): seeds for seeds in found.values()}
    if models.keys() != paper.TABLE_1.keys() or len(models) != len(found):
        raise RunError(
            f"Table 1 has one model for each of {', '.join(paper.TABLE_1)}; these runs are of "
            f"{'; '.join(found)}"
        )
    runs.require_same_seeds(found)
    if len(models["vib"]) < 2:
        raise RunError("Table 1 compares models over seeds; train at least two of each")
    wrong = runs.wrong_answers(models)
    rows = [error_columns(models[name], wrong[name]) for name in paper.TABLE_1]
    for name, row in zip(paper.TABLE_1, rows, strict=True):
        if name != "vib":
            row |= difference_columns(wrong[name], minus_vib=wrong["vib"])
    table = pd.DataFrame(rows)
    compared = table["paired_t_p"].notna()
    table.loc[compared, "holm_p"] = statistics.holm(larger_p(table[compared]))
    return table


def error_columns(seeds: dict[int, StoredRun], wrong: runs.Wrong) -> dict[str, Any]:
    """A model's test error, and the published ones."""
    cfg = next(iter(seeds.values())).record["config"]
    published = paper.published_error(cfg)
    pereyra = paper.PEREYRA.get(cfg["objective"]["name"]) if published else None
    error = statistics.over_seeds(wrong.mean(axis=1))
    return {
        "model": runs.model_name(cfg),
        **tables.columns("error_mc", "percent", error.mean, error.interval),
        "seeds": error.seeds,
        "paper_percent": 100 * published[0] if published else None,
        "pereyra_percent": 100 * pereyra if pereyra else None,
    }


def difference_columns(wrong: runs.Wrong, *, minus_vib: runs.Wrong) -> dict[str, Any]:
    """A model's error minus VIB's, and its tests."""
    crossed = statistics.crossed_bootstrap(wrong, minus=minus_vib, seed=statistics.BOOTSTRAP_SEED)
    t = statistics.paired_t(wrong.mean(axis=1), minus=minus_vib.mean(axis=1))
    pairs = zip(wrong, minus_vib, strict=True)
    mcnemar = [statistics.mcnemar(this, against=vib) for this, vib in pairs]
    return {
        **tables.columns("difference", "points", crossed.difference, crossed.interval),
        "crossed_p": crossed.p,
        **tables.columns("paired_t", "points", t.difference, t.interval),
        "paired_t_p": t.p,
        "only_model_wrong": sum(test.only_this for test in mcnemar),
        "only_vib_wrong": sum(test.only_other for test in mcnemar),
        "mcnemar_min_p": min(test.p for test in mcnemar),
        "mcnemar_max_p": max(test.p for test in mcnemar),
    }


def larger_p(compared: pd.DataFrame) -> pd.Series:
    """The larger p of the two tests: below a level only where both are."""
    return compared[["paired_t_p", "crossed_p"]].max(axis=1)


# The note below the table


def conclusions(table: pd.DataFrame) -> str:
    """Whether VIB is better, as the numbers of Table 1 have it: plain text in paragraphs."""
    compared = table[table["paired_t_p"].notna()]
    before = verdict(compared, larger_p(compared))
    after = verdict(compared, compared["holm_p"])
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


def verdict(compared: pd.DataFrame, p_values: pd.Series) -> str:
    """VIB against each model in one sentence, without its full stop."""
    significant = p_values < SIGNIFICANT
    higher = compared["difference_points"] > 0
    chosen = {
        "better than": significant & higher,
        "worse than": significant & ~higher,
        "not distinguishable from": ~significant,
    }
    said = [
        f"{relation} {enumerated([runs.short_name(model) for model in compared['model'][models]])}"
        for relation, models in chosen.items()
        if models.any()
    ]
    return f"VIB is {'; '.join(said)}"


def comparison(row: dict[Any, Any]) -> str:
    """What the note says of one model."""
    model = runs.short_name(row["model"])
    crossed, paired_t = (tables.cell(row, name, "points") for name in ("difference", "paired_t"))
    return (
        f"{model[0].upper()}{model[1:]} minus VIB, in points: {crossed}, "
        f"{p_text(row['crossed_p'])} (crossed bootstrap); {paired_t}, "
        f"{p_text(row['paired_t_p'])} (paired t); {p_text(row['holm_p'])} after Holm's correction. "
        f"Images that {model} alone gets wrong: {row['only_model_wrong']:.0f}, VIB alone: "
        f"{row['only_vib_wrong']:.0f}; McNemar's test seed by seed: {p_text(row['mcnemar_min_p'])} "
        f"to {p_text(row['mcnemar_max_p'])}."
    )


def p_text(p: float) -> str:
    """A p of two digits; those below 0.001 are not told apart."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def enumerated(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
