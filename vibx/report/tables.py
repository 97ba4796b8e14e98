"""What tables share: columns in percent, cells, and tables as csv, Markdown and LaTeX.

Every table is a data frame with units in the names of its columns, and files drawn from it.
Intervals are 95% intervals.
"""

import re
from typing import Any

import numpy as np
import pandas as pd

from vibx.report.statistics import Interval

LATEX = (  # what plain text needs in LaTeX, in this order
    (r"[%&#_]", r"\\\g<0>"),
    (r"^-$", r"--"),
    (r"(?<!\w)-(?=\d)", r"$-$"),
    (r"\b1e(-?\d+)", r"$10^{\1}$"),
    (r"\b(beta|epsilon)\b", r"$\\\1$"),
    (r"[<>]", r"$\g<0>$"),
)


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


def latex(header: list[str], body: list[list[str]], *, caption: str, note: str, label: str) -> str:
    """A LaTeX table with its caption above and its note below; needs booktabs alone."""
    header_line, *lines = (" & ".join(map(escape, row)) + r" \\" for row in (header, *body))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{tab:{label}}}",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{4pt}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            header_line,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
            r"\medskip\raggedright",
            escape(note),
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Plain text in LaTeX's spelling."""
    for pattern, replacement in LATEX:
        text = re.sub(pattern, replacement, text)
    return text


def files(name: str, **texts: str) -> dict[str, bytes]:
    """A table's files: texts by their suffix."""
    return {f"{name}.{suffix}": text.encode() for suffix, text in texts.items()}
