"""`vibx export`: write finished runs' weights for others to load."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vibx import config, store
from vibx.choices import one_of, require
from vibx.commands import end, named_in
from vibx.display import RESULTS
from vibx.errors import going_through
from vibx.files import lock

DTYPES = ("float16", "float32")


@dataclass(frozen=True, kw_only=True)
class Export:
    """The keys of conf/export."""

    root: str
    runs: str
    output: str
    dtype: str

    def __post_init__(self) -> None:
        config.expand_paths(self, "root", "output")
        require(self.dtype in DTYPES, "dtype", self.dtype, one_of(DTYPES))


def main(cfg: DictConfig) -> None:
    """Export the chosen runs and name what was written.

    Raises:
      ConfigError: a run would be written where it was trained.
    """
    given = config.settings(Export, cfg)
    chosen, problems = store.select(Path(given.root), given.runs)
    places = [Path(given.output) / run.record["run_id"] for run in chosen]
    for run, place in zip(chosen, places, strict=True):
        store.require_weights(run)
        own = place.resolve() == run.directory.resolve()
        allowed = f"a directory other than that of a trained {place.name}"
        require(not own and not is_trained(place), "output", given.output, allowed)

    from vibx.training.export import export_run  # imports jax

    exported: list[Path] = []
    for run, place in zip(chosen, places, strict=True):
        held = lock(run.directory, work="exported", shared=True)
        with going_through(exported), named_in(problems, run), held:
            export_run(run, place, dtype=given.dtype)
            exported.append(place)
            has = "has the weights, the record and the card"
            RESULTS.print(f"{place}/ {has}", soft_wrap=True, markup=False)
    end(problems)


def is_trained(directory: Path) -> bool:
    """Whether a directory has a trained run, or its record, and no export."""
    has_weights = (directory / store.WEIGHTS).exists()
    return bool(store.checkpoints(directory)) or (store.is_finished(directory) and not has_weights)
