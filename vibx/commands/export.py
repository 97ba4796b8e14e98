"""`vibx export`: write finished runs' weights for others to load."""

from pathlib import Path

from omegaconf import DictConfig

from vibx import store
from vibx.choices import one_of, refuse_unknown, require
from vibx.commands import end, named_in
from vibx.display import RESULTS
from vibx.files import lock

DTYPES = ("float16", "float32")


def main(cfg: DictConfig) -> None:
    """Export the chosen runs and name what was written."""
    refuse_unknown(cfg, {"hydra", "root", "runs", "output", "dtype"})
    require(cfg.dtype in DTYPES, "dtype", cfg.dtype, one_of(DTYPES))
    chosen, problems = store.select(Path(cfg.root), cfg.runs)
    for run in chosen:
        store.require_weights(run)

    from vibx.training.export import export_run  # imports jax

    for run in chosen:
        with named_in(problems), lock(run.directory, work="exported", shared=True):
            directory = export_run(run, Path(cfg.output), dtype=cfg.dtype)
            RESULTS.print(f"{directory}/ has the weights, the record and the card", soft_wrap=True)
    end(problems)
