"""Made-up runs of Table 1 whose errors are known."""

import dataclasses

import numpy as np

from tests.records import write_run

MODELS = ["maximum_likelihood", "dropout", "confidence_penalty", "label_smoothing", "vib"]
NUMBERS = {
    "dropout": {"rate": 0.5},
    "confidence_penalty": {"weight": 1.0},
    "label_smoothing": {"epsilon": 0.01},
}
SPREAD = np.array([0, 2, -1, 3, 1]) * 1e-4  # of a model's errors over five seeds


def chosen(configs, *, models=MODELS, seeds=range(5)):
    return [cfg for cfg in configs if cfg.objective.name in models and cfg.seed in seeds]


def train(root, configs, *, vib, others, spread=SPREAD):
    """Runs whose errors are those of VIB or of the others, and a little more or less by seed."""
    errors = dict.fromkeys(MODELS, others + spread) | {"vib": vib + spread[::-1]}
    return [write_run(root, cfg, error_mc=errors[cfg.objective.name][cfg.seed]) for cfg in configs]


def validated(configs):
    """The same runs with a part of the training images held out."""
    return [
        dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, validation=10_000))
        for cfg in configs
    ]


def with_optimizer(configs, **changes):
    return [
        dataclasses.replace(cfg, optimizer=dataclasses.replace(cfg.optimizer, **changes))
        for cfg in configs
    ]
