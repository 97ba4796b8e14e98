"""Norms at equal expected success on models of one seed: a table as `robustness` has it."""

from vibx.report import tables
from vibx.report.drawings import Drawing, Files, Source, robustness

EXPERIMENT = "figure4_expected_seed0"


def draw(source: Source) -> Files:
    """Draw robustness_seed0.csv and .md."""
    attacks = source.found[EXPERIMENT]
    expected = robustness.expected_table(attacks)
    text = robustness.expected_text(expected, attacks, scale=source.scale)
    return tables.files("robustness_seed0", csv=tables.csv(expected), md=text)


DRAWING = Drawing(
    "Robustness of one seed",
    experiments=(EXPERIMENT,),
    draw=draw,
    attacked=("table1", "figure1"),
)
