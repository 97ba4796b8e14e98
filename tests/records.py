"""Runs as a finished training leaves them, with made-up results, for the readers of records."""

import math

import numpy as np

from vibx import store
from vibx.experiments import expand
from vibx.files import write_arrays
from vibx.store import StoredAttack, StoredRun

IMAGES = 10_000
CLASSES = 10
PROVENANCE = {"vibx": "0.1.0", "command": "vibx train", "device": "cpu: cpu"}


def section(n, *, error_1, error_mc, distortion_bits, rate_bits):
    return {
        "n": n,
        "error_1": error_1,
        "error_mc": error_mc,
        "mc_samples": 1 if rate_bits is None else 12,
        "error_mean": error_mc,
        "distortion_bits": distortion_bits,
        "rate_bits": rate_bits,
        "izy_lower_bits": math.log2(CLASSES) - distortion_bits,
        "izx_upper_bits": rate_bits,
        "nll_mc_bits": distortion_bits / 2,
    }


def write_experiment(root, experiment, *, scale):
    """Runs of an experiment, but for those that are there from another one."""
    for cfg in expand(experiment, scale=scale):
        if not (root / cfg.run_id).exists():
            write_run(root, cfg)


def write_run(root, cfg, *, error_mc=0.0125, error_1=None, rate_bits=None, train_error=0.001):
    """The directory of a finished run of a configuration whose errors are as given."""
    draw = np.random.default_rng(list(cfg.run_id.encode()))
    directory = root / cfg.run_id
    directory.mkdir(parents=True)
    if cfg.beta is not None and rate_bits is None:
        rate_bits = min(500.0, 0.02 / max(cfg.beta, 1e-9))
    error_1 = error_mc if error_1 is None else error_1
    held_out = "validation" if cfg.data.validation else "test"
    wrong = draw.permutation(IMAGES) < round(error_mc * IMAGES)
    labels = np.arange(IMAGES, dtype=np.int32) % CLASSES  # the same images for every run
    predicted = np.where(wrong, (labels + 1) % CLASSES, labels)
    log_probability = np.where(wrong, -3.0, -0.01)
    store.write_config(directory, cfg.to_dict())
    write_arrays(
        directory / store.PREDICTIONS,
        labels=labels,
        class_1=predicted,
        class_mc=predicted,
        log_probability_mc=log_probability,
    )
    if cfg.K == 2:
        angle = 2 * np.pi * labels[:1000] / CLASSES
        means = 3 * np.stack([np.cos(angle), np.sin(angle)], -1) + draw.normal(0, 0.2, (1000, 2))
        factor = np.array([[0.3, 0.0], [0.1, 0.2]])
        directions = 2 * np.pi * np.arange(CLASSES) / CLASSES
        write_arrays(
            directory / store.EMBEDDING,
            labels=labels[:1000],
            means=means,
            cholesky=np.broadcast_to(factor, (1000, 2, 2)),
            decoder_kernel=2 * np.stack([np.cos(directions), np.sin(directions)]),
            decoder_bias=np.zeros(CLASSES),
        )
    record = {
        "schema": store.SCHEMA,
        "run_id": cfg.run_id,
        "config": cfg.to_dict(),
        "train": section(
            60_000,
            error_1=train_error,
            error_mc=train_error,
            distortion_bits=0.01,
            rate_bits=rate_bits,
        ),
        held_out: section(
            IMAGES,
            error_1=error_1,
            error_mc=error_mc,
            distortion_bits=0.1,
            rate_bits=rate_bits,
        )
        | {"nll_mc_bits": float(-log_probability.mean() / math.log(2))},
        "epochs": cfg.epochs,
        "steps": cfg.epochs * 600,
        "seconds": 2.5 * cfg.epochs,
        "images_per_second": 24_000.0,
        "provenance": PROVENANCE,
    }
    return StoredRun(directory, store.write_record(directory, record))


def with_arrays(stored, name, arrays, *, directory=None):
    """A run or an attack, perhaps in another directory, as if it had left other arrays."""
    directory = directory or stored.directory
    directory.mkdir(parents=True, exist_ok=True)
    write_arrays(directory / name, **arrays)
    record = store.write_record(directory, stored.record)
    return stored._replace(directory=directory, record=record)


def write_attack(run, cfg, *, held=1.0, seen=1.0, size=0.2, pixels=100, votes=None):
    """What an attack with a configuration leaves of a finished run.

    `seen` is the share of the images, the first ones, on which the attack saw a success: there
    `pixels` of them change by `size`, up to a tenth more. `held` is the share of the answers to
    each of these that are its goal, the rest is right; `votes` gives them all instead.
    """
    indices = np.array(cfg.indices)
    n, images = len(indices), np.arange(len(indices))
    labels = np.zeros(n, int) if cfg.images else indices % CLASSES  # listed images are zeros
    goals = (labels + 1) % CLASSES if cfg.target is None else np.full(n, cfg.target)
    success = images < round(seen * n)
    right = cfg.rechecks * np.eye(CLASSES, dtype=int)[labels]
    if votes is None:
        votes = right.copy()
        moved = np.where(success, round(held * cfg.rechecks), 0)
        votes[images, labels] -= moved
        votes[images, goals] += moved
    untargeted = cfg.mode == "untargeted"
    original = np.random.default_rng(indices).integers(0, 128, (n, 784)).astype(np.uint8)
    change = np.zeros((n, 784))
    change[:, :pixels] = (size * (1 + images / (10 * n)) * success)[:, None]
    arrays = {
        "index": indices,
        "label": labels,
        "target": np.full(n, -1) if untargeted else goals,
        "original": original,
        "adversarial": (original / 255 + change).astype(np.float32),
        "votes_before": right,
        "votes": votes,
        "l0_8_bits": np.sum(change > 0.5 / 255, axis=1),
        "l0_visible": np.sum(change > 0.05, axis=1),
        "l2": np.sqrt(np.sum(change**2, axis=1)),
        "linf": change.max(axis=1),
        "success": success,
        "constant": np.where(success, 1.0, 0.0),
        "iterations": np.full(n, 100),
    }
    shares = votes / votes.sum(axis=1, keepdims=True)
    at_goal = 1 - shares[images, labels] if untargeted else shares[images, goals]
    norms = ("l0_8_bits", "l0_visible", "l2", "linf")
    record = {
        "schema": store.SCHEMA,
        "run_id": run.record["run_id"],
        "attack": cfg.to_dict(),
        "n": n,
        "accuracy_before": 1.0,
        "misclassified_before": 0,
        "successes_seen": int(success.sum()),
        "accuracy_seen": float(1 - success.mean()),
        "accuracy_recheck": float(shares[images, labels].mean()),
        "goal_recheck": float(at_goal.mean()),
        **{
            f"{norm}_median": float(np.median(arrays[norm][success])) if success.any() else None
            for norm in norms
        },
        "provenance": PROVENANCE,
    }
    if cfg.attack.votes_decide:
        sampled = run.record["config"]["bottleneck"]["name"] != "deterministic"
        record |= {"goal_probability": 0.9 * record["goal_recheck"] if sampled else None}
    directory = store.attack_directory(run, cfg.name)
    directory.mkdir(parents=True)
    write_arrays(directory / store.ADVERSARIAL, **arrays)
    return StoredAttack(run, directory, store.write_record(directory, record))
