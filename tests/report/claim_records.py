"""Made-up runs and attacks of two worlds: one as the paper has it, one where nothing is so."""

import dataclasses
import math
import re

import numpy as np

from tests.records import CLASSES, IMAGES, section, write_attack, write_run
from vibx import experiments, store
from vibx.files import write_arrays
from vibx.report import published

SEEDS = 0, 1, 2
TRUE, FALSE = "as the paper has it", "not so"
ORDER = np.random.default_rng(0).permutation(IMAGES)  # in which images are wrong
SMALL = 1e-5  # beta up to which a model overfits

# test error_1, error_mc; train error_1, error_mc; rate; I(Z,Y) on train and test images
NAMES = ("error_1", "error_mc", "train_1", "train_mc", "rate", "izy_train", "izy_test")


def at_k256(world, beta):
    if world == TRUE:
        if beta <= 1e-4:
            return 0.0150, 0.0150, 0, 0, 2000 - 1e7 * beta, 3.31, 3.20
        return {
            3e-4: (0.0150, 0.0140, 0.001, 0, 60, 3.30, 3.23),
            1e-3: (0.0163, 0.0113, 0.001, 0, 40, 3.29, 3.24),
            3e-3: (0.0180, 0.0110, 0.002, 0, 25, 3.27, 3.23),
            1e-2: (0.0200, 0.0110, 0.005, 0, 12, 3.25, 3.22),
            3e-2: (0.0300, 0.0200, 0.010, 0, 5, 3.22, 3.1),
            1e-1: (0.2000, 0.0500, 0.150, 0, 3, 3.21, 2.9),
            3e-1: (0.5000, 0.2000, 0.400, 0, 2, 2.0, 2.0),
            1.0: (0.9000, 0.8000, 0.900, 0, 1, 0.5, 0.5),
        }[beta]
    if beta <= 1e-4:
        return 0.0700, 0.0200, 0.03, 0.03, 2000, 2.67, 2.67
    rate, error_1 = {1e-1: (30, 0.02), 3e-1: (20, 0.5), 1.0: (2, 0.05)}.get(beta, (200, 0.02))
    rate *= 2 if beta == 3e-2 else 1
    izy = 3 - 0.1 * math.log10(rate)
    return error_1, 0.0300, 0.03, 0.03, rate, izy, izy - 0.5


def at_k2(world, beta):
    error_mc, error_1 = published.FIGURE_2.get(beta, (0.0170, 0.0170))
    if world == TRUE:
        error = 0.05 if beta <= SMALL else error_mc
        izy = 0.05 if beta == 1 else 3.2
        return (
            max(error, error_1),
            error,
            0.01,
            0.01,
            100 / (beta + 1e-2),
            izy,
            izy - 0.3 * (izy > 1),
        )
    error_1 = {1e-3: 0.02, 1e-1: 0.005}.get(beta, 0.01)
    izy = 2 + math.log10(beta + 1e-9) / 10
    return error_1, 0.02 if beta == 1e-1 else 0.01, 0.02, 0.02, 100 / (beta + 1e-2), izy, izy


def embedding(world, beta):
    """Ten classes on a circle; wide posteriors, large beta, overlap in the one world alone."""
    rank = sorted((0.0, *published.FIGURE_2)).index(beta) if beta in (0, *published.FIGURE_2) else 0
    width = (1e-4, 0.02, 0.2, 1.0)[rank] if world == TRUE else (1.0, 0.4, 0.2, 0.1)[rank]
    within = 0.05 if world == TRUE else 1.0
    labels = np.arange(1000) % CLASSES
    angle = 2 * np.pi * np.arange(CLASSES) / CLASSES
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    means = 3 * circle[labels] + within * np.random.default_rng(0).normal(size=(1000, 2))
    return {
        "labels": labels,
        "means": means,
        "cholesky": np.broadcast_to(width * np.eye(2), (1000, 2, 2)),
        "decoder_kernel": 2 * circle.T,
        "decoder_bias": 50.0 * (world == FALSE) * np.eye(CLASSES)[0],  # it is always class 0
    }


def write(root, cfg, world, values):
    """A finished run whose record, predictions and embedding are as given."""
    held_out = "validation" if cfg.data.validation else "test"
    run = write_run(root, cfg, error_mc=values["error_mc"])
    labels = np.arange(IMAGES) % CLASSES
    predicted = {}
    for name, error in (("class_1", values["error_1"]), ("class_mc", values["error_mc"])):
        predicted[name] = labels.copy()
        wrong = ORDER[: round(error * IMAGES)]
        predicted[name][wrong] = (labels[wrong] + 1) % CLASSES
    write_arrays(
        run.directory / store.PREDICTIONS, labels=labels, log_probability_mc=labels, **predicted
    )
    if cfg.K == 2:
        write_arrays(run.directory / store.EMBEDDING, **embedding(world, cfg.beta))
    for images, one, average, izy in (
        ("train", "train_1", "train_mc", "izy_train"),
        (held_out, "error_1", "error_mc", "izy_test"),
    ):
        run.record[images] = section(
            run.record[images]["n"],
            error_1=values[one],
            error_mc=values[average],
            distortion_bits=math.log2(CLASSES) - values[izy],
            rate_bits=values["rate"],
        )
    return run._replace(record=store.write_record(run.directory, run.record))


def values_of(cfg, world):
    """What is recorded of a run in one of the worlds."""
    if cfg.objective.name == "vib":
        return dict(zip(NAMES, (at_k2 if cfg.K == 2 else at_k256)(world, cfg.beta), strict=True))
    if world == FALSE:
        error = 0.02
    elif cfg.data.validation:
        number = getattr(cfg.objective, "weight", getattr(cfg.objective, "epsilon", 0))
        error = 0.020 if number in (1, 0.03) else 0.013
    else:
        error = published.TABLE_1[cfg.objective.name]
    return dict(zip(NAMES, (error, error, 0, 0, None, 3.3, 3.2), strict=True))


def train(root, world):
    """The runs of all experiments that train, by experiment, in one of the worlds."""
    written, found = {}, {}
    for name in ("table1", "select_penalty", "select_smoothing", "figure1", "figure1b", "figure2"):
        found[name] = []
        for cfg in experiments.expand(name, scale="smoke"):
            for seed in SEEDS:
                seeded = dataclasses.replace(cfg, seed=seed)
                if seeded not in written:
                    written[seeded] = write(root, seeded, world, values_of(seeded, world))
                if written[seeded] not in found[name]:
                    found[name].append(written[seeded])
    return found


def attack(trained, world):
    """The attacks of all experiments on the runs of a world, by experiment."""
    runs = {
        (r.record["config"]["objective"]["name"], beta_of(r), r.record["config"]["seed"]): r
        for r in trained["table1"] + trained["figure1"]
    }
    found = {}
    for name in ("figure3", "figure4", "mean_mode", "figure4_expected"):
        attacks = {}
        for conditions, cfg in experiments.expand_attacks(name, scale="smoke"):
            for run in store.among(list(runs.values()), re.sub(r"seed=\d", "K=256", conditions)):
                key = run.directory, cfg
                if key not in attacks:
                    attacks[key] = write_attack(run, cfg, **size_of(name, run, cfg, world))
        found[name] = list(attacks.values())
    return found


def beta_of(run):
    return run.record["config"]["beta"]


def size_of(name, run, cfg, world):
    """How large an attack's perturbations are, and how often it succeeds."""
    beta = beta_of(run)
    base, untargeted = beta is None, cfg.mode == "untargeted"
    mean_mode, grown = cfg.samples is None, 0 if base else 1 + math.log10(beta + 1e-9) / 9
    if world == TRUE:
        size = (0.2 if untargeted else 0.3) * (1 if base else 1.1 + grown)
        pixels = 100 - round(20 * grown)
        if base or name == "figure4_expected":
            return {"size": size, "pixels": pixels}
        if name == "figure3":
            return {"size": size, "pixels": pixels, "seen": 0.5 if beta >= 1e-3 else 1, "held": 0}
        return {"size": size, "pixels": pixels, "seen": 0.4 if untargeted else 0.5, "held": 0.9}
    size = (0.4 if untargeted else 0.2) * (1 if base else 0.9 - 0.3 * grown)
    pixels = 100 + round(20 * grown)
    held = 0.0 if base else 1.0 if mean_mode or name == "figure3" else 0.2 + 0.3 * untargeted
    if beta == 1e-8 and name == "figure4":
        held = 1.0
    return {"size": size, "pixels": pixels, "held": held}
