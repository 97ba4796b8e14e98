"""Made-up runs for figures, and what figures are asked."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tests import records
from vibx import experiments
from vibx.store import RunError, StoredRun


def grid(experiment):
    return experiments.expand(experiment, scale="smoke")


def write(root, configs, *, seeds=(0,)):
    """Runs whose test error is smallest at beta = 3e-3, and whose train error is often 0."""
    draw = np.random.default_rng(0)
    return [
        records.write_run(
            root,
            dataclasses.replace(cfg, seed=seed),
            error_mc=0.012 + abs(cfg.beta - 3e-3) / 2 + draw.integers(5) / 10_000,
            error_1=0.02 + cfg.beta / 2 + draw.integers(5) / 10_000,
            train_error=cfg.beta / 3 if cfg.beta >= 1e-3 else 0.0,
        )
        for cfg in configs
        for seed in seeds
    ]


def edited(run, tmp_path, change):
    """A copy of a run with its record changed; the file is as it was."""
    record = json.loads(json.dumps(run.record))
    change(record)
    return StoredRun(tmp_path, record)


def lines(axes):
    """The curves and points by their name in the legend."""
    return {line.get_label(): line for line in axes.lines if line.get_label()[0] not in "_$"}


def points(line):
    """A line's points, without the gap at the axis's break."""
    x, y = line.get_data()
    return np.stack([x, y], axis=-1)[~np.isnan(x)]


def refused(call, *args):
    with pytest.raises(RunError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


# Oklab from linear RGB, and what three kinds of colour-blind eyes see (Machado et al., 2009).
LMS = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]
EYES = {
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def oklab(colors, eyes):
    """Colours in Oklab, as a kind of eyes sees them."""
    rgb = np.array([to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(EYES[eyes]), 0, 1)
    return np.cbrt(seen @ np.transpose(LMS)) @ np.transpose(LAB)
