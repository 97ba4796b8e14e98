"""`vibx attack`: attack finished runs, ask them again under independent noise, keep both."""

from pathlib import Path

from omegaconf import DictConfig

from vibx import runs
from vibx.attack_config import AttackConfig, Audit, parse_attack
from vibx.display import RESULTS, attack_table, audit_table, fraction_bar


def main(cfg: DictConfig) -> None:
    """Attack the chosen runs and print what came of it."""
    attack, execution = parse_attack(cfg)
    chosen = runs.select(Path(execution.root), execution.runs)
    results = [attacked(run, attack, force=execution.force) for run in chosen]
    if isinstance(attack.attack, Audit):
        for result in results:
            RESULTS.print(audit_table(result))
    else:
        RESULTS.print(attack_table(results))


def attacked(run: runs.StoredRun, attack: AttackConfig, *, force: bool) -> runs.Record:
    """What an attack finds on a run, from its file if it has been there."""
    from vibx.robustness import attack_run, audit_run  # imports jax

    work = audit_run if isinstance(attack.attack, Audit) else attack_run
    directory = runs.attack_directory(run, attack.name)
    with runs.lock(directory, work="attacked"):
        if force:
            runs.clear(directory)
        if runs.is_finished(directory):
            return runs.read_attack(run, attack.name).record
        with fraction_bar(f"{run.record['run_id']} {attack.attack.name}") as on_progress:
            return work(run, attack, on_progress=on_progress)
