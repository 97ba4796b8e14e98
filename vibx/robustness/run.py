"""Attacks on finished runs: from a run's weights to what an attack found and what it is worth.

Two questions are kept apart. What the attack saw: a noisy model's luckiest answer among thousands.
What holds: the model's answers to the same image afterwards, under independent noise.
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from vibx import config, store
from vibx.attacks.black_box import noise, spsa
from vibx.attacks.carlini_wagner import CarliniWagnerSettings, carlini_wagner_l2, part_of
from vibx.attacks.gradient import fgsm, pgd
from vibx.attacks.per_image import Classify, image_keys
from vibx.attacks.scoring import Norms, norms, recheck, share_of, to_8_bits
from vibx.config import CLASSES, TEST_IMAGES
from vibx.data import load
from vibx.evaluation import mean
from vibx.robustness.audit import AuditSettings, NothingToAttackError, audit
from vibx.robustness.classifier import classifier
from vibx.robustness.config import AttackConfig
from vibx.training.checkpoint import Checkpoints
from vibx.training.run import device_name, utc_now
from vibx.training.state import evaluated_parameters, model_definition, split
from vibx.training.streams import Stream, stream

PARTS = "parts"
PART = 250  # images whose result is kept as soon as it is there
NO_TARGET = -1
WITHIN_BUDGET: dict[str, Callable[..., jax.Array]] = {"fgsm": fgsm, "pgd": pgd, "spsa": spsa}

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Progress = Callable[[float], None]


def attack_run(run: store.StoredRun, cfg: AttackConfig, *, on_progress: Progress) -> store.Record:
    """Attack a finished run and write what comes of it in its directory, metrics.json last.

    Results are kept in parts of `PART` images, so that an interrupted attack loses one at most.
    `on_progress` is told the fraction of the work that is done.

    Raises:
      RunError: the run's weights are not there.
    """
    begin = utc_now()
    classify = classifier_of(run, cfg.samples)
    images, labels = test_images(run, cfg)
    targets = targets_of(labels, cfg)
    n = len(labels)
    directory = store.attack_directory(run, cfg.name)
    parts = directory / PARTS
    parts.mkdir(parents=True, exist_ok=True)
    found: list[Arrays] = []
    for start in range(0, n, PART):
        rows = slice(start, start + PART)
        path = parts / f"{start:05}.npz"
        if not path.exists():
            part = attack_images(
                classify,
                cfg,
                images[rows],
                labels[rows],
                None if targets is None else targets[rows],
                cfg.indices[rows],
                on_progress=part_of(on_progress, start / n, len(labels[rows]) / n),
            )
            store.write_arrays(path, **part)
        found.append(store.read_arrays(path))
    arrays = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    store.write_arrays(directory / store.ADVERSARIAL, **arrays)
    result = written(run, cfg, summary(arrays), start=begin)
    shutil.rmtree(parts)
    return result


def audit_run(run: store.StoredRun, cfg: AttackConfig, *, on_progress: Progress) -> store.Record:
    """Audit a finished run and write metrics.json with its checks.

    Raises:
      RunError: the run's weights are not there, or no run to transfer from, or no image is
        classified right.
    """
    begin = utc_now()
    assert cfg.samples is not None  # AttackConfig refuses it
    numbers = dataclasses.asdict(cfg.attack)
    numbers.pop("name")
    source = numbers.pop("transfer_from")
    if source is not None:
        sources = store.select(run.directory.parent, source, key="attack.transfer_from")
        source = classifier_of(sources[0], None)
    images, labels = test_images(run, cfg)
    try:
        checks = audit(
            functools.partial(classifier_of, run),
            images,
            labels,
            image_keys(stream(jax.random.key(cfg.seed), Stream.ATTACK), jnp.asarray(cfg.indices)),
            targets=targets_of(labels, cfg),
            samples=cfg.samples,
            transfer_from=source,
            settings=AuditSettings(**numbers, rechecks=cfg.rechecks),
            on_progress=on_progress,
        )
    except NothingToAttackError as error:
        raise store.RunError(f"{run.directory}: {error}") from error
    return written(run, cfg, {"checks": [check._asdict() for check in checks]}, start=begin)


def written(
    run: store.StoredRun, cfg: AttackConfig, found: dict[str, Any], *, start: str
) -> store.Record:
    """The record of what an attack found, in its file."""
    record = {
        "schema": store.SCHEMA,
        "run_id": run.record["run_id"],
        "attack": cfg.to_dict(),
        **found,
        "provenance": store.provenance(device=device_name(), start=start, end=utc_now()),
    }
    store.write_json(store.attack_directory(run, cfg.name) / store.METRICS, record)
    return record


def attack_images(
    classify: Classify,
    cfg: AttackConfig,
    images: jax.Array,
    labels: jax.Array,
    targets: jax.Array | None,
    indices: list[int],
    *,
    on_progress: Progress,
) -> Arrays:
    """Attack images and ask the model again; everything is per image, in their order.

    `votes_before` and `votes` count, class by class, the model's answers to the original and to
    the adversarial image under noise that is independent of the attack's. `success` is what the
    attack saw; an attack within a budget looks at no answer and has none.
    """
    keys = image_keys(stream(jax.random.key(cfg.seed), Stream.ATTACK), jnp.asarray(indices))
    numbers = dataclasses.asdict(cfg.attack)
    name = numbers.pop("name")
    seen: Arrays = {}
    if name == "carlini_wagner_l2":
        result = carlini_wagner_l2(
            classify,
            images,
            labels,
            keys,
            targets=targets,
            settings=CarliniWagnerSettings(**numbers),
            on_progress=on_progress,
            chunk=PART,
        )
        adversarial = result.images
        seen = {key: getattr(result, key) for key in ("success", "constant", "iterations")}
    elif name == "noise":
        adversarial = noise(images, keys, **numbers)
    else:
        adversarial = WITHIN_BUDGET[name](
            classify, images, labels, keys, targets=targets, **numbers
        )
    on_progress(1.0)
    return {
        "index": np.asarray(indices),
        "label": labels,
        "target": np.full(len(labels), NO_TARGET) if targets is None else targets,
        "original": to_8_bits(images),
        "adversarial": np.asarray(adversarial),
        "votes_before": recheck(classify, images, keys, repeats=cfg.rechecks),
        "votes": recheck(classify, adversarial, keys, repeats=cfg.rechecks),
        **norms(images, adversarial)._asdict(),
        **seen,
    }


def classifier_of(run: store.StoredRun, samples: int | None) -> Classify:
    """The finished run's model as an attack sees it, see `classifier`.

    Raises:
      RunError: its weights are not there.
    """
    directory = run.directory / store.CHECKPOINTS
    if not directory.is_dir():
        raise store.RunError(
            f"{run.directory} has no checkpoints: train that run again with force=true"
        )
    program, _ = split(config.parse_config(run.record["config"]))
    with Checkpoints(directory) as checkpoints:
        parameters = evaluated_parameters(checkpoints.restore(program))
    return classifier(model_definition(program), parameters, samples=samples)


def test_images(run: store.StoredRun, cfg: AttackConfig) -> tuple[jax.Array, jax.Array]:
    """The attacked images of the run's data set in [0, 1], float32[n, 784], and their labels."""
    images = load(run.record["config"]["data"]["name"]).held_out
    rows = np.asarray(cfg.indices)
    return jnp.float32(images.pixels[rows]) / 255, jnp.asarray(images.labels[rows])


def targets_of(labels: jax.Array, cfg: AttackConfig) -> jax.Array | None:
    """The goal of a targeted attack: one class for all, or a wrong one for each, drawn by seed.

    A test image has the same target whichever others are attacked with it.
    """
    if cfg.mode == "untargeted":
        return None
    if cfg.target is not None:
        return jnp.full(len(labels), cfg.target, jnp.int32)
    steps = np.random.default_rng(cfg.seed).integers(1, CLASSES, TEST_IMAGES)
    return (labels + steps[cfg.indices]) % CLASSES


def summary(arrays: Arrays) -> dict[str, Any]:
    """What metrics.json says of an attack; accuracies are fractions of all its images.

    `accuracy_seen`: right before, and by what the attack saw still afterwards; null for an attack
    within a budget. `accuracy_recheck` and `goal_recheck`: the mean share of the answers under
    independent noise that are the true class, or what the attack wanted. Norms are medians over
    the images on which the attack succeeded, all of them within a budget, in pixels of range 1.
    """
    labels, targets = arrays["label"], arrays["target"]
    right_before = share_of(arrays["votes_before"], labels)
    right = share_of(arrays["votes"], labels)
    untargeted = bool((targets == NO_TARGET).all())
    at_goal = 1 - right if untargeted else share_of(arrays["votes"], targets)
    success = arrays.get("success")
    counted = np.ones(len(labels), bool) if success is None else success
    return {
        "n": len(labels),
        "accuracy_before": mean(right_before),
        "misclassified_before": int((right_before < 0.5).sum()),
        "successes_seen": None if success is None else int(success.sum()),
        "accuracy_seen": None if success is None else mean(~success & (right_before >= 0.5)),
        "accuracy_recheck": mean(right),
        "goal_recheck": mean(at_goal),
        **{
            f"{norm}_median": float(np.median(arrays[norm][counted])) if counted.any() else None
            for norm in Norms._fields
        },
    }
