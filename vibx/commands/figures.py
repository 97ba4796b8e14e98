"""`vibx figures`: draw the paper's table and figures from finished runs."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from vibx import config, figures, tables
from vibx.config import Config
from vibx.display import MESSAGES, RESULTS
from vibx.errors import FailedRunError
from vibx.experiments import SCALES, Collected, collect, read_store
from vibx.runs import RunError, StoredRun

Runs = dict[str, list[StoredRun]]  # of an experiment


class MissingRunsError(FailedRunError):
    """Some tables or figures could not be drawn."""


class Drawing(NamedTuple):
    """A table or figure: the experiments whose runs it needs, and what draws it."""

    experiments: tuple[str, ...]
    draw: Callable[[Runs, Path], list[Path]]


def figure1(runs: Runs, output: Path) -> list[Path]:
    """Figure 1, from both of its experiments."""
    return figures.save(*figures.figure1(runs["figure1"], runs["figure1b"]), output, "figure1")


def figure2(runs: Runs, output: Path) -> list[Path]:
    """Figure 2."""
    return figures.save(*figures.figure2(runs["figure2"]), output, "figure2")


def table1(runs: Runs, output: Path) -> list[Path]:
    """Table 1."""
    return tables.write_table1(runs["table1"], output)


SELECTIONS = ("select_dropout", "select_penalty", "select_smoothing")
DRAWINGS = {
    "Table 1": Drawing(("table1",), table1),
    "Figure 1": Drawing(("figure1", "figure1b"), figure1),
    "Figure 2": Drawing(("figure2",), figure2),
    "Selections": Drawing(SELECTIONS, tables.write_selections),
}
EXPERIMENTS = [name for drawing in DRAWINGS.values() for name in drawing.experiments]


def main(cfg: DictConfig) -> None:
    """Draw what all runs are there for, and say what is missing for the rest."""
    config.refuse_unknown(cfg, {"hydra", "root", "output"})
    root, output = Path(cfg.root), Path(cfg.output)
    stores = {scale: store_directory(root, scale) for scale in SCALES}
    stores = {scale: store for scale, store in stores.items() if store.is_dir()}
    if not stores:
        raise RunError(f"{root}: no such directory; `vibx train` makes one")
    contents = {store: read_store(store) for store in set(stores.values())}
    scales = {scale: look_up(contents[store], scale) for scale, store in stores.items()}
    scale = max(scales, key=lambda name: completeness(scales[name]))
    RESULTS.print(f"from {stores[scale]}, scale={scale}:")
    for title, drawing in DRAWINGS.items():
        if not any(scales[scale][name].missing for name in drawing.experiments):
            runs = {name: scales[scale][name].runs for name in drawing.experiments}
            show(title, drawing.draw(runs, output))
    compared = {name: scales[name]["table1"].runs for name in scales if name != "smoke"}
    if sum(map(bool, compared.values())) > 1:
        show("Recipes", tables.write_recipes(compared, output))
    report_missing(scales[scale], scale=scale, root=stores[scale])


def store_directory(root: Path, scale: str) -> Path:
    """The store of a scale: its own in a directory with one per scale, else the one there is."""
    return root / scale if any((root / name).is_dir() for name in SCALES) else root


def look_up(store: dict[Config, StoredRun], scale: str) -> dict[str, Collected]:
    """The runs of all experiments at a scale."""
    return {name: collect(name, scale=scale, store=store) for name in EXPERIMENTS}


def completeness(found: dict[str, Collected]) -> tuple[bool, int]:
    """Ranks a complete scale before others, and those by the number of their runs."""
    complete = not any(experiment.missing for experiment in found.values())
    return complete, 0 if complete else sum(len(e.runs) for e in found.values())


def show(title: str, paths: list[Path]) -> None:
    """Name what was drawn."""
    RESULTS.print(f"{title}: {' '.join(map(str, paths))}", soft_wrap=True)


def report_missing(found: dict[str, Collected], *, scale: str, root: Path) -> None:
    """Give the command for every experiment that is not complete.

    Raises:
      MissingRunsError: there is one.
    """
    incomplete = {name: experiment for name, experiment in found.items() if experiment.missing}
    for name, (there, missing) in incomplete.items():
        MESSAGES.print(
            f"{name}: {len(missing)} of {len(there) + len(missing)} runs are missing: "
            f"vibx train experiment={name} scale={scale} root={root}",
            soft_wrap=True,
        )
    if incomplete:
        raise MissingRunsError(f"runs are missing for {', '.join(incomplete)}")
