"""`vibx attack`: attack finished runs, ask them again under independent noise, keep both."""

from pathlib import Path

from omegaconf import DictConfig

from vibx import runs
from vibx.attack_config import AttackConfig, parse_attack
from vibx.display import RESULTS, attack_table, fraction_bar


def main(cfg: DictConfig) -> None:
    """Attack the chosen runs and print what came of it, a row per run."""
    attack, execution = parse_attack(cfg)
    chosen = runs.select(Path(execution.root), execution.runs)
    results = [attacked(run, attack, force=execution.force) for run in chosen]
    RESULTS.print(attack_table(results))


def attacked(run: runs.StoredRun, attack: AttackConfig, *, force: bool) -> runs.Record:
    """What an attack finds on a run, from its file if it has been there."""
    from vibx.robustness import attack_run, directory_of  # imports jax

    directory = directory_of(run, attack)
    with runs.lock(directory, work="attacked"):
        if force:
            runs.clear(directory)
        if runs.is_finished(directory):
            return runs.read_attack(directory)
        with fraction_bar(f"{run.record['run_id']} {attack.name}") as on_progress:
            return attack_run(run, attack, on_progress=on_progress)
