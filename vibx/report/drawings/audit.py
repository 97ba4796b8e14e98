"""The audit of Figure 4's attack: a table of its checks for each run."""

import pandas as pd

from vibx.report.drawings import Drawing, Files, Source
from vibx.report.models import model_name
from vibx.report.tables import csv, files, markdown
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
        sections.append(markdown(CHECK, rows.to_numpy().tolist(), caption=caption, rule="---"))
    return files("audit", csv=csv(table), md="\n".join(sections))


DRAWING = Drawing("Audit", experiments=("attack_audit",), draw=draw, attacked=("table1", "figure1"))


def audit(audits: list[StoredAttack]) -> pd.DataFrame:
    """A row per audited run and check."""
    return pd.DataFrame(
        [
            {
                "run_id": record["run_id"],
                "model": model_name(run.record["config"]),
                "images": record["attack"]["n"],
                "check": check["name"],
                **{column: check[column] for column in CHECK[1:]},
            }
            for run, _, record in audits
            for check in record["checks"]
        ]
    )
