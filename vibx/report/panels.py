"""Which runs belong in one panel of Figures 1 and 2."""

from vibx import store
from vibx.report.models import require_same
from vibx.store import RunError, StoredRun

K256 = "objective=vib,K=256,bottleneck=diagonal,data.validation=0"
K2 = "objective=vib,K=2,bottleneck=full_covariance,decoder=linear,data.validation=0"


def require_panel(stored: list[StoredRun], conditions: str) -> None:
    """Refuse runs that would make a panel other than it looks.

    Raises:
      RunError: no runs, a run that fails the `conditions` (as `store.matching` reads them), runs
        that differ in more than beta and seed, or a beta that lacks a seed of the others.
    """
    if not stored:
        raise RunError(f"no runs with {conditions}")
    for run in stored:
        if not store.matching([run.record], conditions):
            raise RunError(f"{run.record['run_id']}: not a run with {conditions}")
    require_same(stored, but={"beta", "seed"})
    configs = [run.record["config"] for run in stored]
    seeds = {config["seed"] for config in configs}
    for beta in sorted({config["beta"] for config in configs}):
        missing = seeds - {config["seed"] for config in configs if config["beta"] == beta}
        if missing:
            listed = ", ".join(map(str, sorted(missing)))
            raise RunError(f"beta={beta:g} lacks seed {listed}, which another beta has")
