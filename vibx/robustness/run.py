"""Attacks on finished runs: from a run's weights to what an attack found and what it is worth.

Two questions are kept apart. What the attack saw: a noisy model's luckiest answer among thousands.
What holds: the model's answers to the same image, re-evaluated under independent noise.
"""

import functools
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vibx import attacks, config, store
from vibx.attacks.per_image import Classify, Progress, Task, image_keys, part_of, perturb, tasks
from vibx.attacks.scoring import Norms, norms, reevaluate, share_of, to_8_bits
from vibx.attacks.settings import Attack
from vibx.choices import found_by_schema
from vibx.data import DataInfo, load_test
from vibx.files import (
    FILES,
    Arrays,
    arrays_in,
    lock,
    read_listed,
    read_sealed,
    write_arrays,
    write_sealed,
)
from vibx.robustness.audit import NothingToAttackError, audit
from vibx.robustness.classifier import classifier_of, logits_of_images
from vibx.robustness.config import AttackConfig, Audit
from vibx.robustness.exact import goal_probability
from vibx.training.run import device_name, utc_now
from vibx.training.streams import Stream, stream

PARTS = "parts"
PART = 250  # images whose result is kept as soon as it is there
NO_TARGET = -1

logger = logging.getLogger(__name__)

attacks.import_modules()


def attack_run(
    run: store.StoredRun, cfg: AttackConfig, directory: Path, *, on_progress: Progress
) -> store.Record:
    """Attack a finished run and write what comes of it in a directory, metrics.json last.

    `on_progress` is told the fraction of the work that is done.

    Raises:
      RunError: the run's weights are not there, or an audit cannot be made.
      ConfigError: the run's data set is too small.
    """
    start = utc_now()
    cfg.check_sizes(config.parse_config(run.record["config"]))
    measured = measure(cfg.attack, run, cfg, directory, on_progress=on_progress)
    record = {
        "schema": store.SCHEMA,
        "run_id": run.record["run_id"],
        "attack": cfg.to_dict(),
        **measured,
        "provenance": store.provenance(device=device_name(), start=start, end=utc_now()),
    }
    record = store.write_record(directory, record)
    shutil.rmtree(directory / PARTS, ignore_errors=True)
    return record


@found_by_schema
def measure(
    settings: Attack,
    run: store.StoredRun,
    cfg: AttackConfig,
    directory: Path,
    *,
    on_progress: Progress,
) -> dict[str, Any]:
    """What metrics.json says of an attack on a run; what it found of each image is written."""
    raise NotImplementedError


@measure.register_family(Attack)
def _(
    settings: Attack,
    run: store.StoredRun,
    cfg: AttackConfig,
    directory: Path,
    *,
    on_progress: Progress,
) -> dict[str, Any]:
    # Results are kept in parts of `PART` images: an interrupted attack loses one at most.
    classify = classifier_of(run, cfg.samples)
    attacked, labels = attack_tasks(run, cfg)
    n = len(labels)
    parts = directory / PARTS
    parts.mkdir(parents=True, exist_ok=True)
    found: list[Arrays] = []
    for start in range(0, n, PART):
        rows = np.arange(start, min(start + PART, n))
        identity = {"run_id": run.record["run_id"], "attack": cfg.name, "start": start}
        arrays = read_part(parts, identity)
        if arrays is None:
            progress = part_of(on_progress, start / n, len(rows) / n)
            part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], attacked)
            arrays = attack_images(classify, cfg, part, on_progress=progress)
            arrays |= {"index": np.asarray(cfg.indices)[rows], "label": np.asarray(labels[rows])}
            write_part(parts, identity, arrays)
        found.append(arrays)
    arrays = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    exact = exact_answers(run, cfg, arrays) if cfg.attack.votes_decide else {}
    there = {name: values for name, values in exact.items() if values is not None}
    write_arrays(directory / store.ADVERSARIAL, **arrays, **there)
    means = {name: None if v is None else float(v.mean()) for name, v in exact.items()}
    return summary(arrays) | means


def write_part(parts: Path, identity: dict[str, Any], arrays: Arrays) -> None:
    """Keep the result of some images, sealed with which they are."""
    name = f"{identity['start']:05}"
    write_arrays(parts / f"{name}.npz", **arrays)
    write_sealed(parts / f"{name}.json", identity, files=[f"{name}.npz"])


def read_part(parts: Path, identity: dict[str, Any]) -> Arrays | None:
    """The result of some images; None where there is none yet, or it is not as it was written."""
    name = f"{identity['start']:05}"
    if not (parts / f"{name}.json").exists():
        return None
    try:
        seal = read_sealed(parts / f"{name}.json")
        if identity.items() <= seal.items():
            return arrays_in(read_listed(parts, f"{name}.npz", seal[FILES]))
        problem = f"{parts / name}: of another attack"
    except store.RunError as error:
        problem = str(error).partition("; ")[0]
    logger.warning("%s; its images are attacked again", problem)
    return None


@measure.register(Audit)
def _(
    settings: Audit,
    run: store.StoredRun,
    cfg: AttackConfig,
    directory: Path,
    *,
    on_progress: Progress,
) -> dict[str, Any]:
    assert cfg.samples is not None  # AttackConfig refuses it
    attacked, labels = attack_tasks(run, cfg)
    source = transfer_source(run, settings.transfer_from)
    try:
        checks = audit(
            settings,
            functools.partial(classifier_of, run),
            attacked,
            labels,
            samples=cfg.samples,
            repeats=cfg.rechecks,
            transfer_from=source and classifier_of_other(source),
            on_progress=on_progress,
        )
    except NothingToAttackError as error:
        raise store.RunError(f"{run.directory}: {error}") from error
    return {
        "checks": [check._asdict() for check in checks],
        "transfer_from": source and source.record["run_id"],
    }


def transfer_source(run: store.StoredRun, conditions: str | None) -> store.StoredRun | None:
    """The run on the same data set that satisfies conditions; of several that of the same recipe.

    None without conditions, and for a run that satisfies them itself.

    Raises:
      RunError: there is none, or several.
    """
    if conditions is None:
        return None
    key = "attack.transfer_from"
    found = store.select(run.directory.parent, conditions, key=key).runs
    if run.directory in [source.directory for source in found]:
        return None
    own = data_of(run)
    on_data = [source for source in found if data_of(source) == own]
    if not on_data:
        raise store.RunError(f"{key}={conditions}: no run on {own[1]}")
    sources = [source for source in on_data if recipe(source) == recipe(run)] or on_data
    if len(sources) > 1:
        names = " and ".join(source.directory.name for source in sources[:2])
        raise store.RunError(f"{key}={conditions}: both {names}; has to be one run")
    return sources[0]


def recipe(run: store.StoredRun) -> list[Any]:
    """How a run was trained."""
    return [run.record["config"][key] for key in ("optimizer", "epochs", "batch_size")]


def classifier_of_other(source: store.StoredRun) -> Classify:
    """Another run's classifier without noise."""
    with lock(source.directory, work="attacked", shared=True):
        return classifier_of(source, None)


def data_of(run: store.StoredRun) -> tuple[DataInfo, str]:
    """The data set of a finished run, and where it is from."""
    info = config.parse_config(run.record["config"]).data.info
    return info, info.source


def attack_images(
    classify: Classify, cfg: AttackConfig, tasks: Task, *, on_progress: Progress
) -> Arrays:
    """Attack images and re-evaluate them; everything is per image, in their order.

    `votes_before` and `votes` count, class by class, the model's answers to the original and to
    the adversarial image under noise that is independent of the attack's. `success` is what the
    attack saw; one within a budget that does not know the noise looks at no answer and has none.
    """
    images, goal, keys = tasks
    adversarial, found = perturb(cfg.attack, classify, tasks, on_progress=on_progress)
    on_progress(1.0)
    arrays = {
        "target": np.full(len(images), NO_TARGET) if cfg.mode == "untargeted" else goal.label,
        "original": to_8_bits(images),
        "adversarial": adversarial,
        "votes_before": reevaluate(classify, images, keys, repeats=cfg.rechecks),
        "votes": reevaluate(classify, adversarial, keys, repeats=cfg.rechecks),
        **norms(images, adversarial)._asdict(),
        **found,
    }
    return {name: np.asarray(values) for name, values in arrays.items()}


def exact_answers(run: store.StoredRun, cfg: AttackConfig, arrays: Arrays) -> dict[str, Any]:
    """`goal_probability` of each adversarial image, and the standard error of its computation.

    It is of the answer of one sample of z, while `votes` are answers that average `samples`. None
    where answers are not sampled, or their logits are not Gaussian.
    """
    names = ("goal_probability", "goal_probability_error")
    images = jnp.asarray(arrays["adversarial"])
    logits = None if cfg.samples is None else logits_of_images(run, images)
    if logits is None:
        return dict.fromkeys(names)
    targeted = cfg.mode == "targeted"
    goals = arrays["target" if targeted else "label"]
    mean, A = map(np.asarray, logits)
    return dict(zip(names, goal_probability(mean, A, goals, targeted=targeted), strict=True))


def attack_tasks(run: store.StoredRun, cfg: AttackConfig) -> tuple[Task, jax.Array]:
    """The attacked images of a run's data set in [0, 1], with goals and keys, and their labels."""
    data = config.parse_config(run.record["config"]).data
    images, rows = load_test(data), np.asarray(cfg.indices)
    pixels, labels = jnp.float32(images.pixels[rows]) / 255, jnp.asarray(images.labels[rows])
    keys = image_keys(stream(jax.random.key(cfg.seed), Stream.ATTACK), jnp.asarray(rows))
    return tasks(pixels, labels, keys, targets=targets_of(labels, cfg, data.info)), labels


def targets_of(labels: jax.Array, cfg: AttackConfig, info: DataInfo) -> jax.Array | None:
    """The goal of a targeted attack: one class for all, or a wrong one for each, drawn by seed.

    A test image has the same target whichever others are attacked with it.
    """
    if cfg.mode == "untargeted":
        return None
    if cfg.target is not None:
        return jnp.full(len(labels), cfg.target, jnp.int32)
    steps = np.random.default_rng(cfg.seed).integers(1, info.classes, info.test_images)
    return (labels + steps[cfg.indices]) % info.classes


def summary(arrays: Arrays) -> dict[str, Any]:
    """What metrics.json says of an attack; accuracies are fractions of all its images.

    `accuracy_seen`: right before, and by what the attack saw still afterwards; null for an attack
    that does not look, and for one that left changed images short of their targets, which may be
    of a third class. `accuracy_recheck` and `goal_recheck`, of the images re-evaluated under
    independent noise: the mean share of answers that are the true class, or what it wanted.
    Norms are medians over the images on which it saw a success, all if it does not look, in pixels
    of range 1.
    """
    labels, targets = arrays["label"], arrays["target"]
    right_before = share_of(arrays["votes_before"], labels)
    right = share_of(arrays["votes"], labels)
    untargeted = bool((targets == NO_TARGET).all())
    at_goal = 1 - right if untargeted else share_of(arrays["votes"], targets)
    success = arrays.get("success")
    seen, counted = None, np.ones(len(labels), bool)
    if success is not None:
        counted = success
        if untargeted or not arrays["l2"][~success].any():
            seen = float(np.mean(~success & (right_before >= 0.5)))
    return {
        "n": len(labels),
        "accuracy_before": float(right_before.mean()),
        "misclassified_before": int((right_before < 0.5).sum()),
        "successes_seen": None if success is None else int(success.sum()),
        "accuracy_seen": seen,
        "accuracy_recheck": float(right.mean()),
        "goal_recheck": float(at_goal.mean()),
        **{
            f"{norm}_median": float(np.median(arrays[norm][counted])) if counted.any() else None
            for norm in Norms._fields
        },
    }
