"""Made-up attacks on made-up runs, for Figures 3 and 4."""

import dataclasses
import itertools
import json
import math

import numpy as np

from tests.records import write_attack, write_run
from vibx import experiments, store
from vibx.store import StoredAttack, StoredRun

BETAS = 0.0, 1e-8, 1e-3, 1e-2
MODES = "targeted", "untargeted"


def grids():
    """The deterministic model, dropout and VIB at `BETAS`; the attacks of both figures."""
    of_objective = {cfg.objective.name: cfg for cfg in experiments.expand("table1", scale="smoke")}
    models = [of_objective["dropout"], of_objective["maximum_likelihood"]]
    models += [dataclasses.replace(of_objective["vib"], beta=beta) for beta in reversed(BETAS)]
    attacks = {
        name: list(dict.fromkeys(cfg for _, cfg in experiments.expand_attacks(name, scale="smoke")))
        for name in ("figure3", "figure4", "mean_mode")
    }
    return [dataclasses.replace(cfg, seed=0) for cfg in models], attacks


def beta_of(run):
    return run.record["config"]["beta"]


def robust(run):
    """Larger with beta, and 0 for models other than VIB."""
    beta = beta_of(run)
    return 0.0 if beta is None else 1 + math.log10(beta + 1e-9) / 12


def attack_zeros(run, cfg, **changes):
    """An attack on Figure 3's images; on VIB its size, its pixels and its success vary."""
    by_beta = {
        "size": 0.2 + 0.1 * robust(run),
        "pixels": 100 - round(40 * robust(run)),
        "seen": 0.8 if beta_of(run) == 1e-2 else 1.0,
        "held": 1 - robust(run),
    }
    return write_attack(run, cfg, **by_beta | changes)


def attack_many(run, cfg):
    """An attack of Figure 4(b): at kappa = 0, or at a mean of z, what the attack saw differs."""
    kappa, untargeted = cfg.attack.confidence, cfg.mode == "untargeted"
    held = 1 if kappa or cfg.samples is None else 1 - robust(run) * (0.9 if untargeted else 0.7)
    seen = 0.95 if beta_of(run) == 1e-2 else 1.0
    size = 0.2 + 0.02 * kappa + 0.05 * robust(run) - 0.05 * untargeted + cfg.seed / 1000
    return write_attack(run, cfg, held=held, seen=seen, size=size)


def attack_all(root, grids, *, seeds=(0,), attack_seeds=(0,), images=None):
    """The attacks of Figure 3, perhaps on fewer images, and those of Figure 4."""
    models, attacks = grids
    models = [dataclasses.replace(cfg, seed=seed) for cfg in models for seed in seeds]
    stored = [write_run(root, cfg) for cfg in models]

    def seeded(name):
        for cfg, seed in itertools.product(attacks[name], attack_seeds):
            listed = cfg.images and (images or cfg.images)
            yield dataclasses.replace(cfg, seed=seed, images=listed)

    zeros = [attack_zeros(run, cfg) for run in stored for cfg in seeded("figure3")]
    many = [attack_many(run, cfg) for run in stored for cfg in seeded("figure4")]
    in_mean_mode = [run for run in stored if beta_of(run) in (0, 1e-3)]
    many += [attack_many(run, cfg) for run in in_mean_mode for cfg in seeded("mean_mode")]
    return zeros, many


def arrays_of(attack):
    return np.load(attack.directory / store.ADVERSARIAL)


def edited(attack, change):
    """A copy of an attack with its record, or its run's, changed; the files are as they were."""
    record, of_run = json.loads(json.dumps([attack.record, attack.run.record]))
    change(record["attack"], of_run["config"])
    return StoredAttack(StoredRun(attack.run.directory, of_run), attack.directory, record)


def those(attacks, *, mode, kappa, model="vib", mean_mode=False):
    """Records of attacks by beta."""
    return {
        beta_of(run): record
        for run, _, record in sorted(attacks, key=lambda a: beta_of(a.run) or 0)
        if run.record["config"]["objective"]["name"] == model
        and record["attack"]["mode"] == mode
        and record["attack"]["attack"]["confidence"] == kappa
        and (record["attack"]["samples"] is None) == mean_mode
    }


def objective(attack):
    return attack.run.record["config"]["objective"]["name"]
