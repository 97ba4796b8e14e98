"""Whether records are as they were written, belong together, and say what is in their files.

Every function gives a line for each thing that is wrong.
"""

import math
from collections.abc import Iterator
from typing import Any

import yaml

from vibx import config, store
from vibx.errors import UserError
from vibx.evaluation.measure import measures
from vibx.experiments import read_attack, require_own_name
from vibx.files import FILES, REMEDY, damaged, read_sealed
from vibx.robustness.config import parse_attack_config
from vibx.store import Record, StoredRun

RELATIVE_STORED = 1e-6  # of means over the same float32 values, summed otherwise
# Of numbers that are computed again from weights, perhaps on another machine.
IMAGES, RELATIVE, BITS = 3, 1e-3, 1e-5


def run_problems(run: StoredRun) -> Iterator[str]:
    """What is wrong with a finished run and what is beside it, but for its weights' numbers."""
    broken = list(damaged(run.directory, run.record[FILES]))
    yield from broken
    try:
        cfg = config.parse_config(run.record["config"])
        require_own_name(run.record["run_id"], cfg.run_id, run.directory)
        if not broken:
            yield from content_problems(run)
    except UserError as error:
        yield str(error)
    yield from attack_problems(run)
    yield from evaluation_problems(run)
    yield from checkpoint_problems(run)


def content_problems(run: StoredRun) -> Iterator[str]:
    """Where a run's files say something else than its record."""
    if store.CONFIG in run.record[FILES]:
        written = yaml.safe_load(store.read_file(run, store.CONFIG))
        if written != run.record["config"]:
            yield f"{run.directory / store.CONFIG}: not the configuration in its record; {REMEDY}"
    if store.PREDICTIONS in run.record[FILES]:
        arrays = store.read_arrays(run, store.PREDICTIONS)
        section = run.record[store.held_out_name(run.record)]
        found = {
            m.name: m.of_images(arrays[m.stored_as], arrays["labels"])
            for m in measures()
            if m.stored_as in arrays
        }
        for name, value in found.items():
            if value is None or not math.isclose(value, section[name], rel_tol=RELATIVE_STORED):
                yield (
                    f"{run.directory / store.PREDICTIONS}: gives {name}={value}, its record says "
                    f"{section[name]}; {REMEDY}"
                )


def attack_problems(run: StoredRun) -> Iterator[str]:
    """What is wrong with the attacks on a run."""
    for directory in sorted((run.directory / store.ATTACKS).glob("*/")):
        if store.is_finished(directory):
            try:
                attack = store.read_attack(run, directory.name)
                own = parse_attack_config(attack.record["attack"])
                require_own_name(directory.name, own.name, directory)
                yield from damaged(directory, read_attack(run, own).record[FILES])
            except UserError as error:
                yield str(error)


def evaluation_problems(run: StoredRun) -> Iterator[str]:
    """What is wrong with evaluations with other numbers of samples."""
    for path in sorted(run.directory.glob(f"{store.EVALUATION}*.json")):
        try:
            evaluated = read_sealed(path, remedy="evaluate it again")["run_id"]
            if evaluated != run.record["run_id"]:
                yield f"{path}: is of {evaluated}; evaluate it again"
        except UserError as error:
            yield str(error)


def checkpoint_problems(run: StoredRun) -> Iterator[str]:
    """What is wrong with a run's checkpoints."""
    for checkpoint in store.checkpoints(run.directory).values():
        try:
            store.read_manifest(checkpoint, run.record["run_id"])
        except UserError as error:
            yield str(error)


def differences(record: Record, evaluated: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Where numbers that are computed again are others than the record's, beyond rounding."""
    for images, section in evaluated.items():
        for measure in measures():
            found, recorded = section[measure.name], record[images].get(measure.name)
            slack = IMAGES / section["n"] if measure.unit == "fraction" else BITS
            if (found is None) != (recorded is None) or (
                found is not None
                and not math.isclose(found, recorded, rel_tol=RELATIVE, abs_tol=slack)
            ):
                yield (
                    f"{record['run_id']}: its weights give {images} {measure.name}={found}, its "
                    f"record says {recorded}"
                )
