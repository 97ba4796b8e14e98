"""`vibx attack`: attack finished runs, re-evaluate them under independent noise, keep both."""

from pathlib import Path

from omegaconf import DictConfig

from vibx import config, store
from vibx.display import RESULTS, fraction_bar
from vibx.errors import going_through
from vibx.report.screen import attack_table, audit_table
from vibx.robustness.config import AttackConfig, Audit, parse_attack


def check(cfg: DictConfig) -> None:
    """Refuse a composed configuration that is no attack.

    Raises:
      ConfigError: it is none.
    """
    parse_attack(cfg)


def main(cfg: DictConfig) -> None:
    """Attack the chosen runs and print what came of it."""
    attack, execution = parse_attack(cfg)
    chosen = store.select(Path(execution.root), execution.runs)
    for run in chosen:
        attack.check_sizes(config.parse_config(run.record["config"]))
    results: list[store.Record] = []
    with going_through(results):
        for run in chosen:
            results.append(attacked(run, attack, force=execution.force))
    if isinstance(attack.attack, Audit):
        for result in results:
            RESULTS.print(audit_table(result))
    else:
        RESULTS.print(attack_table(results))


def attacked(run: store.StoredRun, attack: AttackConfig, *, force: bool) -> store.Record:
    """What an attack finds on a run, from its file if it has been there."""
    from vibx.robustness.run import attack_run  # imports jax

    directory = store.attack_directory(run, attack.name)
    with store.lock(directory, work="attacked"):
        if force:
            store.clear(directory)
        if store.is_finished(directory):
            return store.read_attack(run, attack.name).record
        with fraction_bar(f"{run.record['run_id']} {attack.attack.name}") as on_progress:
            return attack_run(run, attack, on_progress=on_progress)
