"""`vibx train`: train one run and show what came out; sweeps go to their launcher."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vibx import config
from vibx.display import RESULTS, run_summary
from vibx.store import LockedError
from vibx.training.launch import launch


def run_id(*, _root_: DictConfig) -> str:
    """`${run_id:}` of conf/train.yaml; refuses a bad configuration before Hydra writes."""
    return config.parse(_root_)[0].run_id


OmegaConf.register_new_resolver("run_id", run_id, replace=True)


def main(cfg: DictConfig) -> None:
    """Train the run of a composed configuration, unless it is finished."""
    run, execution = config.parse(cfg)
    outcome = launch([(run, execution)])[run.run_id]
    match outcome:
        case LockedError():
            RESULTS.print(str(outcome))
        case Exception():
            raise outcome
        case record:
            RESULTS.print(run_summary(record))
            directory = Path(execution.root) / run.run_id
            RESULTS.print(f"{directory}/ has the record, the history and the predictions")
