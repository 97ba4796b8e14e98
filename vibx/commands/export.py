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
    """Export the chosen runs and name what was written."""
    given = config.settings(Export, cfg)
    chosen, problems = store.select(Path(given.root), given.runs)
    for run in chosen:
        store.require_weights(run)

    from vibx.training.export import export_run  # imports jax

    exported: list[Path] = []
    for run in chosen:
        held = lock(run.directory, work="exported", shared=True)
        with going_through(exported), named_in(problems), held:
            exported.append(export_run(run, Path(given.output), dtype=given.dtype))
            has = "has the weights, the record and the card"
            RESULTS.print(f"{exported[-1]}/ {has}", soft_wrap=True)
    end(problems)
