"""`vibx attack`: attack finished runs, re-evaluate them under independent noise, keep both."""

import contextlib
from pathlib import Path

from omegaconf import DictConfig

from vibx import config, store
from vibx.choices import require
from vibx.commands import end, named_in
from vibx.display import RESULTS, fraction_bar, show_warnings
from vibx.errors import going_through
from vibx.experiments import read_attack
from vibx.files import lock
from vibx.report.screen import attack_table, audit_table
from vibx.robustness.config import AttackConfig, AttackExecution, Audit, parse_attack


def check(cfg: DictConfig) -> None:
    """Refuse a composed configuration that is no attack.

    Raises:
      ConfigError: it is none.
    """
    parse_attack(cfg)


def main(cfg: DictConfig) -> None:
    """Attack the chosen runs and print what came of it, also if it ends early."""
    attack, execution = parse_attack(cfg)
    show_warnings()
    chosen, problems = chosen_runs(execution)
    ready = []
    for run in chosen:
        with named_in(problems, run):
            attack.check_sizes(config.parse_config(run.record["config"]))
            if execution.force or not store.is_finished(store.attack_directory(run, attack.name)):
                store.require_weights(run)
            ready.append(run)
    results: list[store.Record] = []
    try:
        for run in ready:
            with going_through(results), named_in(problems, run):
                results.append(attacked(run, attack, force=execution.force))
    finally:
        if isinstance(attack.attack, Audit):
            for result in results:
                RESULTS.print(audit_table(result))
        elif results:
            RESULTS.print(attack_table(results))
    end(problems)


def chosen_runs(execution: AttackExecution) -> store.Found:
    """The runs that are to be attacked, or the exported one.

    Raises:
      ConfigError: `weights` is not the directory of an exported run.
      RunError: no run matches, or (DamagedError) the exported one is not as it was written.
    """
    if execution.weights is None:
        return store.select(Path(execution.root), execution.runs)
    directory = Path(execution.weights).absolute()
    there = (directory / store.WEIGHTS).exists() and store.is_finished(directory)
    require(there, "weights", execution.weights, "the directory of a run that vibx export wrote")
    return store.Found([store.StoredRun(directory, store.read_record(directory))], [])


def attacked(run: store.StoredRun, attack: AttackConfig, *, force: bool) -> store.Record:
    """What an attack finds on a run, from its file if it has been there; the run is held."""
    directory = store.attack_directory(run, attack.name)
    if store.is_finished(directory) and not force:
        return read_attack(run, attack).record

    from vibx.robustness.run import attack_run  # imports jax

    store.require_weights(run)
    with contextlib.ExitStack() as held:
        held.enter_context(lock(run.directory, work="attacked", shared=True))
        held.callback(remove_empty, directory.parent)
        place = held.enter_context(store.working(directory, work="attacked", force=force))
        if store.is_finished(place):  # by a process that held the lock until now
            return read_attack(run, attack).record
        title = f"{run.record['run_id']} {attack.attack.name}"
        on_progress = held.enter_context(fraction_bar(title))
        return attack_run(run, attack, place, on_progress=on_progress)


def remove_empty(directory: Path) -> None:
    """Remove a directory in which nothing is."""
    with contextlib.suppress(OSError):
        directory.rmdir()
