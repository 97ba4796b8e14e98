"""The ledger: every checkable claim of the paper's sections 4.1 and 4.2, and its verdict."""

from collections import Counter
from typing import Any

import pandas as pd

from vibx.report import ledger, tables
from vibx.report.drawings import Drawing, Files, Source
from vibx.report.ledger import VERDICTS, Claim, Found, Needed

HEADER = ["section", "the paper says", "decided by", "it holds where", "measured", "verdict", "on"]
UNTESTED_SCALE = "fast"  # whose command is said where there are no records
PLURALS = dict(zip(VERDICTS, ("hold", "do not", "cannot be told", "are not tested"), strict=True))
CAPTION = (
    "What the paper says in its sections 4.1 and 4.2, and what the records say to it. Each claim "
    "is decided at the largest scale at which its records are complete. {counts}."
)
NOTE = (
    "[95% interval]: of several seeds Student's t over the seeds or, where test errors or norms "
    "are compared, the percentiles of a bootstrap over seeds and test images; of a single seed "
    "over the test images alone (Wilson, Newcombe, bootstrap). A claim holds where the whole "
    "interval is in the range, and does not hold where all of it is outside; bits and widths of a "
    "single seed have no interval, and stand for themselves. The ranges were written down when the "
    "first results of 15 epochs were known. Claims that are about differences as small as those "
    "between seeds ask for three seeds, which Figures 1 and 4 do not have. Nothing is corrected "
    "for the number of claims.\n\n"
    "Scale paper is 200 epochs of the author's recipe; fast is 15 epochs of another, or 30 of "
    "a third at K = 2, and a verdict from its records is on them. Which table's or figure's runs a "
    "claim is about is in claims.csv, with the command for these alone.\n\n"
    "Not in the ledger, since no record says it: how easily a human sees a perturbation, and that "
    "the model is approximately quadratic (section 4.2.4)."
)


def draw(*sources: Source) -> Files:
    """Draw claims.csv and claims.md."""
    table = ledger_table(list(sources))
    counts = Counter(table["verdict"])
    counted = ", ".join(f"{counts[verdict]} {plural}" for verdict, plural in PLURALS.items())
    caption = CAPTION.format(counts=f"Of {len(table)}, {counted}")
    body = [list(map(escaped, cells(row))) for row in table.to_dict("records")]
    commands = "\n".join(f"    {command}" for command in commands_of(table))
    note = f"{NOTE}\n\nThe records come from\n\n{commands}"
    text = tables.markdown(HEADER, body, caption=caption, note=note, rule="---")
    return tables.files("claims", csv=tables.csv(table), md=text)


DRAWING = Drawing(
    "Claims",
    experiments=(
        *("table1", "figure1", "figure1b", "figure2", "select_penalty", "select_smoothing"),
        *("robustness", "figure3", "figure4", "mean_mode", "figure4_expected"),
    ),
    draw=draw,
    attacked=("table1", "figure1", "robustness"),
    partial=True,
)


def ledger_table(sources: list[Source]) -> pd.DataFrame:
    """A row per claim; `holds` is the range in which it does, in its unit, as `value`."""
    return pd.DataFrame([row(claim, sources) for claim in ledger.find()])


def row(claim: Claim, sources: list[Source]) -> dict[str, Any]:
    """A claim, decided at the first scale that has all of its records."""
    scale, measured = None, None
    for source in sources:
        if (found := found_for(claim, source)) is not None:
            scale, measured = source.scale, ledger.in_unit(claim, claim.measure(found))
            break
    low, high = (measured and measured.interval) or (None, None)
    commands = [needed.command(scale or UNTESTED_SCALE) for needed in claim.needs]
    return {
        "claim": claim.name,
        "section": claim.where,
        "says": claim.says,
        "decided_by": claim.decided_by,
        "holds": str(claim.holds),
        "unit": claim.unit,
        "value": measured and measured.value,
        "low": low,
        "high": high,
        "verdict": ledger.verdict(claim, measured),
        "scale": scale,
        "seeds": measured and measured.seeds,
        "images": measured and measured.images,
        "least_seeds": claim.least_seeds,
        "command": "; ".join(dict.fromkeys(commands)),
    }


def found_for(claim: Claim, source: Source) -> Found | None:
    """The records of a claim at one scale, where there are all of them."""
    found: Found = {}
    for needed in claim.needs:
        missing = [cfg.to_dict() for cfg in source.missing[needed.experiment]]
        there = source.found[needed.experiment]
        chosen = needed.among([settings(record) for record in there])
        if not chosen or needed.among(missing):
            return None
        found[needed.experiment] = [there[i] for i in chosen]
    return found


def settings(record: Any) -> dict[str, Any]:
    """The configuration of a run or of an attack."""
    return record.record["attack"] if "attack" in record.record else record.record["config"]


# Text


def cells(row: dict[Any, Any]) -> list[str]:
    """A claim's row in Markdown."""
    return [
        row["section"],
        row["says"],
        row["decided_by"],
        f"{row['holds']} {row['unit']}",
        value_text(row),
        f"**{row['verdict']}**" if row["verdict"] == ledger.FAILS else row["verdict"],
        origin(row),
    ]


def escaped(text: str) -> str:
    """Text that ends no cell."""
    return text.replace("|", r"\|")


def value_text(row: dict[Any, Any]) -> str:
    """A value with its interval and unit; a dash where there is none."""
    value = number(row["value"])
    if value == "-":
        return value
    interval = "" if pd.isna(row["low"]) else f" [{number(row['low'])}, {number(row['high'])}]"
    return f"{value}{interval} {row['unit']}"


def number(value: float | None) -> str:
    """Two decimals, or two digits where that is more; a dash where there is none."""
    if value is None or pd.isna(value):
        return "-"
    return f"{value:.2g}" if 0 < abs(value) < 0.095 else f"{value:z.2f}"


def origin(row: dict[Any, Any]) -> str:
    """The scale, and how many seeds and images."""
    if pd.isna(row["scale"]):
        return "-"
    seeds = int(row["seeds"])
    images = "" if pd.isna(row["images"]) else f", {int(row['images']):,} images"
    return f"{row['scale']}, {seeds} seed{'s' * (seeds != 1)}{images}"


def commands_of(table: pd.DataFrame) -> list[str]:
    """The commands of the experiments that the claims are decided on, each as a whole."""
    needs = {claim.name: claim.needs for claim in ledger.find()}
    scales = table["scale"].fillna(UNTESTED_SCALE)
    return sorted(
        {
            Needed(needed.experiment).command(scale)
            for name, scale in zip(table["claim"], scales, strict=True)
            for needed in needs[name]
        }
    )
