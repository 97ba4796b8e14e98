"""`vibx export`: write finished runs' weights for others to load."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vibx import config, store
from vibx.choices import one_of, require
from vibx.display import RESULTS
from vibx.errors import going_through

DTYPES = ("float16", "float32")


@dataclass(frozen=True, kw_only=True)
class Export:
    """The keys of conf/export."""

    root: str
    runs: str
    output: str
    dtype: str

    def __post_init__(self) -> None:
        for key in ("root", "output"):
            object.__setattr__(self, key, config.path(key, getattr(self, key)))
        require(self.dtype in DTYPES, "dtype", self.dtype, one_of(DTYPES))


def main(cfg: DictConfig) -> None:
    """Export the chosen runs and name what was written."""
    given = config.settings(Export, cfg)
    chosen = store.select(Path(given.root), given.runs)

    from vibx.training.export import export_run  # imports jax

    exported: list[Path] = []
    with going_through(exported):
        for run in chosen:
            directory = export_run(run, Path(given.output), dtype=given.dtype)
            exported.append(directory)
            RESULTS.print(f"{directory}/ has the weights, the record and the card", soft_wrap=True)
