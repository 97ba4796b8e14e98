"""Runs as a finished training leaves them, with made-up numbers, for the readers of records."""

import math

import numpy as np

from vibx import runs
from vibx.config import CLASSES
from vibx.runs import StoredRun

IMAGES = 10_000
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
    runs.write_config(directory, cfg.to_dict())
    runs.write_arrays(
        directory / runs.PREDICTIONS,
        labels=labels,
        class_1=predicted,
        class_mc=predicted,
        log_probability_mc=np.where(wrong, -3.0, -0.01),
    )
    if cfg.K == 2:
        angle = 2 * np.pi * labels[:1000] / CLASSES
        means = 3 * np.stack([np.cos(angle), np.sin(angle)], -1) + draw.normal(0, 0.2, (1000, 2))
        factor = np.array([[0.3, 0.0], [0.1, 0.2]])
        directions = 2 * np.pi * np.arange(CLASSES) / CLASSES
        runs.write_arrays(
            directory / runs.EMBEDDING,
            labels=labels[:1000],
            means=means,
            cholesky=np.broadcast_to(factor, (1000, 2, 2)),
            decoder_kernel=2 * np.stack([np.cos(directions), np.sin(directions)]),
            decoder_bias=np.zeros(CLASSES),
        )
    record = {
        "schema": runs.SCHEMA,
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
        ),
        "epochs": cfg.epochs,
        "steps": cfg.epochs * 600,
        "seconds": 2.5 * cfg.epochs,
        "images_per_second": 24_000.0,
        "provenance": PROVENANCE,
    }
    runs.write_json(directory / runs.METRICS, record)
    return StoredRun(directory, record)
