"""Table 1's models with the recipe `best`, which was chosen for VIB on validation images."""

from vibx.report.drawings import Drawing, Files, Source, recipes


def draw(source: Source) -> Files:
    """Draw best.csv and best.md."""
    return recipes.side_by_side("best", {"best": source.found["table1_best"]})


DRAWING = Drawing("Best recipe", experiments=("table1_best",), draw=draw)
