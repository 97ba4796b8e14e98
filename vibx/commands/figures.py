"""`vibx figures`: draw the paper's table and figures from finished runs and attacks on them."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vibx import config
from vibx.choices import one_of, require
from vibx.display import MESSAGES, RESULTS
from vibx.errors import FailedRunError, UserError
from vibx.experiments import SCALES, Archive, Collected, command_of
from vibx.files import write_whole
from vibx.report import drawings
from vibx.report.drawings import Drawing, Files, Source
from vibx.workers import worker_pool


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The keys of conf/figures."""

    root: str
    output: str
    scale: str | None

    def __post_init__(self) -> None:
        config.expand_paths(self, "root", "output")
        require(self.scale in (None, *SCALES), "scale", self.scale, f"{one_of(SCALES)}, or null")


class MissingRunsError(FailedRunError):
    """A drawing lacks runs or attacks; a line for each experiment that is not complete."""


def main(cfg: DictConfig) -> None:
    """Draw what all runs are there for, and say what is missing for the rest.

    Raises:
      FailedRunError: something could not be drawn, or a record cannot be used.
    """
    given = config.settings(Figures, cfg)
    archive = Archive(Path(given.root))
    scales = [given.scale] if given.scale else archive.scales
    problems = draw_all(archive, scales, Path(given.output))
    for message in dict.fromkeys(itertools.chain(archive.problems, *problems.values())):
        MESSAGES.print(message, soft_wrap=True, markup=False)
    if problems:
        raise FailedRunError(f"not drawn: {', '.join(problems)}")
    if archive.problems:
        raise FailedRunError(f"all is drawn, without {len(archive.problems)} unusable record(s)")


def draw_all(archive: Archive, scales: list[str], output: Path) -> dict[str, list[str]]:
    """Draw side by side and write; returns why, in lines, by the title of what is not drawn."""
    found = drawings.find()
    problems: dict[str, list[str]] = {}

    @contextmanager
    def noted(drawing: Drawing) -> Iterator[None]:
        try:
            yield
        except MissingRunsError as error:
            problems[drawing.title] = list(error.args)
        except UserError as error:
            problems[drawing.title] = [f"{drawing.title}: {error}"]

    with worker_pool(len(found)) as pool:
        names = (name for drawing in found for name in (*drawing.experiments, *drawing.attacked))
        archive.expand(dict.fromkeys(names), scales, pool)
        begun = {}
        for drawing in found:
            with noted(drawing):
                if sources := sources_of(drawing, archive, scales):
                    begun[drawing] = sources, pool.submit(drawing.draw, *sources)
        for drawing, (sources, files) in begun.items():
            with noted(drawing):
                write(drawing, sources, files.result(), output)
    return {
        drawing.title: problems[drawing.title] for drawing in found if drawing.title in problems
    }


def sources_of(drawing: Drawing, archive: Archive, scales: list[str]) -> list[Source]:
    """What a drawing is drawn from: nothing where there are no two scales to compare.

    Of a partial drawing whatever is there.

    Raises:
      MissingRunsError: its experiments are complete at none of the scales.
    """
    if drawing.compared:
        sources = [source(drawing, archive, scale) for scale in drawing.compared]
        sources = [source for source in sources if all(source.found.values())]
        return sources if len(sources) > 1 else []
    if drawing.partial:
        sources = [source(drawing, archive, scale) for scale in scales]
        return [source for source in sources if any(source.found.values())]
    parts = [drawing]
    if drawing.own_scales:
        parts = [drawing._replace(experiments=(name,)) for name in drawing.experiments]
    sources = list(filter(None, (largest(part, archive, scales) for part in parts)))
    if len(sources) < len(parts):
        raise MissingRunsError(*remedies(drawing, archive, scales))
    return sources


def largest(drawing: Drawing, archive: Archive, scales: list[str]) -> Source | None:
    """All there is for a drawing at the largest scale at which its experiments are complete."""
    for scale in scales:
        if all(collected.complete for _, collected in collect(drawing, archive, scale)):
            return source(drawing, archive, scale)
    return None


def collect(drawing: Drawing, archive: Archive, scale: str) -> Iterator[tuple[str, Collected]]:
    """What there is of each of a drawing's experiments, looked up one after another."""
    for experiment in drawing.experiments:
        yield experiment, archive.collect(experiment, scale=scale, attacked=drawing.attacked)


def source(drawing: Drawing, archive: Archive, scale: str) -> Source:
    """All that there is for a drawing at a scale."""
    collected = dict(collect(drawing, archive, scale))
    found = {name: records.found for name, records in collected.items()}
    return Source(scale, found, {name: records.missing for name, records in collected.items()})


def remedies(drawing: Drawing, archive: Archive, scales: list[str]) -> list[str]:
    """The command for every incomplete experiment, at the scale that has most of the drawing."""

    def found(scale: str) -> int:
        return sum(len(collected.found) for _, collected in collect(drawing, archive, scale))

    scale = max(["fast", *scales] if len(scales) > 1 else scales, key=found)
    lines = []
    for experiment, collected in collect(drawing, archive, scale):
        command = command_of(experiment)
        what = {"train": "runs", "attack": "attacks"}[command]
        missing = len(collected.missing)
        share = f"{missing} of {len(collected.found) + missing}" if missing else "all"
        if not collected.complete:
            lines.append(
                f"{experiment}: {share} {what} are missing: vibx {command} "
                f"experiment={experiment} scale={scale} root={archive.stores[scale]}"
            )
    return lines


def write(drawing: Drawing, sources: list[Source], files: Files, output: Path) -> None:
    """Write a drawing's files and name them."""
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(output / name, content)
    scale = ",".join(dict.fromkeys(source.scale for source in sources))
    paths = " ".join(str(output / name) for name in files)
    RESULTS.print(f"{drawing.title}, scale={scale}: {paths}", soft_wrap=True, markup=False)
