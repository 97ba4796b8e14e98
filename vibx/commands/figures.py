"""`vibx figures`: draw the paper's table and figures from finished runs and attacks on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from vibx import config
from vibx.config import Config
from vibx.display import MESSAGES, RESULTS
from vibx.errors import FailedRunError
from vibx.experiments import SCALES, Collected, collect, collect_attacks, read_store
from vibx.report import attack_figures, figures, tables
from vibx.store import RunError, StoredRun

Found = dict[str, list[Any]]  # the runs, or the attacks, of each experiment


class MissingRunsError(FailedRunError):
    """Some tables or figures could not be drawn."""


class Drawing(NamedTuple):
    """A table or figure: the experiments whose runs or attacks it needs, and what draws it."""

    experiments: tuple[str, ...]
    draw: Callable[[Found, Path], list[Path]]


def figure1(found: Found, output: Path) -> list[Path]:
    """Figure 1, from both of its experiments."""
    return figures.save(*figures.figure1(found["figure1"], found["figure1b"]), output, "figure1")


def figure2(found: Found, output: Path) -> list[Path]:
    """Figure 2."""
    return figures.save(*figures.figure2(found["figure2"]), output, "figure2")


def figure3(found: Found, output: Path) -> list[Path]:
    """Figure 3."""
    return figures.save(*attack_figures.figure3(found["figure3"]), output, "figure3")


def figure4(found: Found, output: Path) -> list[Path]:
    """Figure 4, (a) from Figure 3's images."""
    accuracy = found["figure4"] + found["mean_mode"]
    return figures.save(*attack_figures.figure4(found["figure3"], accuracy), output, "figure4")


def table1(found: Found, output: Path) -> list[Path]:
    """Table 1."""
    return tables.write_table1(found["table1"], output)


def audit(found: Found, output: Path) -> list[Path]:
    """The audit of the attack."""
    return tables.write_audit(found["attack_audit"], output)


SELECTIONS = ("select_dropout", "select_penalty", "select_smoothing")
DRAWINGS = {
    "Table 1": Drawing(("table1",), table1),
    "Figure 1": Drawing(("figure1", "figure1b"), figure1),
    "Figure 2": Drawing(("figure2",), figure2),
    "Figure 3": Drawing(("figure3",), figure3),
    "Figure 4": Drawing(("figure3", "figure4", "mean_mode"), figure4),
    "Audit": Drawing(("attack_audit",), audit),
    "Selections": Drawing(SELECTIONS, tables.write_selections),
}
ATTACKS = ("figure3", "figure4", "mean_mode", "attack_audit")
TRAINED = ("table1", "figure1", "figure1b", "figure2", *SELECTIONS)
ATTACKED = ("table1", "figure1")  # the experiments whose runs are


def main(cfg: DictConfig) -> None:
    """Draw what all runs are there for, and say what is missing for the rest."""
    config.refuse_unknown(cfg, {"hydra", "root", "output"})
    root, output = Path(cfg.root), Path(cfg.output)
    stores = {scale: store_directory(root, scale) for scale in SCALES}
    stores = {scale: store for scale, store in stores.items() if store.is_dir()}
    if not stores:
        raise RunError(f"{root}: no such directory; `vibx train` makes one")
    contents = {store: read_store(store) for store in set(stores.values())}
    scales = {}
    for scale, store in stores.items():
        scales[scale] = look_up(contents[store], scale)
        if completeness(scales[scale])[0]:  # no smaller one is drawn then
            break
    scale = max(scales, key=lambda name: completeness(scales[name]))
    RESULTS.print(f"from {stores[scale]}, scale={scale}:")
    for title, drawing in DRAWINGS.items():
        if not any(scales[scale][name].missing for name in drawing.experiments):
            found = {name: scales[scale][name].found for name in drawing.experiments}
            show(title, drawing.draw(found, output))
    compared = {
        name: scales[name]["table1"].found
        if name in scales
        else collect("table1", scale=name, found=contents[store]).found
        for name, store in stores.items()
        if name != "smoke"
    }
    if sum(map(bool, compared.values())) > 1:
        show("Recipes", tables.write_recipes(compared, output))
    report_missing(scales[scale], scale=scale, root=stores[scale])


def store_directory(root: Path, scale: str) -> Path:
    """The store of a scale: its own in a directory with one per scale, else the one there is."""
    return root / scale if any((root / name).is_dir() for name in SCALES) else root


def look_up(store: dict[Config, StoredRun], scale: str) -> dict[str, Collected]:
    """The runs of all experiments at a scale, and the attacks on them."""
    trained = {name: collect(name, scale=scale, found=store) for name in TRAINED}
    attacked = {run.directory: run for name in ATTACKED for run in trained[name].found}
    stored = list(attacked.values())
    attacks = {name: collect_attacks(name, scale=scale, stored=stored) for name in ATTACKS}
    return {**trained, **attacks}


def completeness(collected: dict[str, Collected]) -> tuple[bool, int]:
    """Ranks a complete scale before others, and those by the number of their runs and attacks."""
    complete = not any(experiment.missing for experiment in collected.values())
    return complete, 0 if complete else sum(len(e.found) for e in collected.values())


def show(title: str, paths: list[Path]) -> None:
    """Name what was drawn."""
    RESULTS.print(f"{title}: {' '.join(map(str, paths))}", soft_wrap=True)


def report_missing(collected: dict[str, Collected], *, scale: str, root: Path) -> None:
    """Give the command for every experiment that is not complete.

    Raises:
      MissingRunsError: there is one.
    """
    incomplete = {name: experiment for name, experiment in collected.items() if experiment.missing}
    for name, (found, missing) in incomplete.items():
        of = f"{len(missing)} of {len(found) + len(missing)}"
        command = (
            f"{of} attacks are missing: vibx attack experiment={name} scale={scale}"
            if name in ATTACKS
            else f"{of} runs are missing: vibx train experiment={name} scale={scale}"
        )
        MESSAGES.print(f"{name}: {command} root={root}", soft_wrap=True)
    if incomplete:
        raise MissingRunsError(f"runs or attacks are missing for {', '.join(incomplete)}")
