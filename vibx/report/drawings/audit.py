"""The audit of Figure 4's attack: a table of its checks for each run."""

import pandas as pd

from vibx.report import runs, tables
from vibx.report.drawings import Drawing, Files, Source
from vibx.store import StoredAttack

CHECK = ["check", "expected", "measured", "passed", "meaning"]


def draw(source: Source) -> Files:
    """Draw audit.csv and audit.md."""
    table = audit(source.found["attack_audit"])
    sections = []
    for _, checks in table.groupby("run_id", sort=False):
        caption = (
            f"**{checks['model'].iloc[0]}**, scale {source.scale}, the first "
            f"{checks['images'].iloc[0]} test images: {checks['passed'].sum()} of {len(checks)} "
            "checks passed."
        )
        rows = checks[CHECK].assign(passed=checks["passed"].map({True: "yes", False: "**no**"}))
        body = rows.to_numpy().tolist()
        sections.append(tables.markdown(CHECK, body, caption=caption, rule="---"))
    return tables.files("audit", csv=tables.csv(table), md="\n".join(sections))


DRAWING = Drawing("Audit", experiments=("attack_audit",), draw=draw, attacked=("table1", "figure1"))


def audit(audits: list[StoredAttack]) -> pd.DataFrame:
    """A row per audited run and check."""
    return pd.DataFrame(
        [
            {
                "run_id": record["run_id"],
                "model": runs.model_name(run.record["config"]),
                "images": record["attack"]["n"],
                "check": check["name"],
                **{column: check[column] for column in CHECK[1:]},
            }
            for run, _, record in audits
            for check in record["checks"]
        ]
    )
