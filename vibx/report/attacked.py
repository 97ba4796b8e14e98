"""Attacks as Figures 3 and 4 show them: on which model, what came of them, which belong together.

What an attack saw and what holds are kept apart: the answers counted here are a model's to
attacked images, re-evaluated under independent noise.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vibx import store
from vibx.files import Arrays
from vibx.report import runs
from vibx.store import RunError, StoredAttack, StoredRun

BASE, VIB, MEAN_MODE = "deterministic", "VIB", "VIB in mean mode"
MODELS = {"maximum_likelihood": BASE, "dropout": "dropout", "vib": VIB}
MODEL = ["model", "beta"]
SEEDS = ["seed", "attack_seed"]
CELL = ["mode", "confidence", *SEEDS]  # a model's attacks
NORMS = ["l0_8_bits", "l0_visible", "l2", "linf"]


def read(attack: StoredAttack) -> Arrays:
    """What the attack found, image by image."""
    return store.read_arrays(attack, store.ADVERSARIAL)


def outcomes(arrays: Arrays) -> npt.NDArray[np.str_]:
    """What most answers to each image are: `target`, `true` or `other`; a tie is no success."""
    votes, every = arrays["votes"], np.arange(len(arrays["votes"]))
    most = votes == votes.max(axis=1, keepdims=True)
    at_target = most[every, arrays["target"]] & (most.sum(axis=1) == 1)
    return np.select([at_target, most[every, arrays["label"]]], ["target", "true"], "other")


def norms_seen(attack: StoredAttack, norm: str, *, failure: float) -> npt.NDArray[np.floating]:
    """A norm of each image's perturbation; `failure` where the attack saw no success."""
    arrays = read(attack)
    return np.where(arrays["success"], arrays[norm], failure)


def mean_norms(attack: StoredAttack) -> dict[str, float]:
    """Mean norms of the successes that the attack saw, how many they are, and how many hold."""
    arrays = read(attack)
    seen = arrays["success"]
    means = {name: arrays[name][seen].mean() if seen.any() else np.nan for name in NORMS}
    return {**means, "seen": seen.sum(), "hold": (outcomes(arrays) == "target").sum()}


def settings(attack: StoredAttack) -> dict[str, Any]:
    """The attack's configuration, flat."""
    given = attack.record["attack"]
    return {**given, **given["attack"], "attack": given["attack"]["name"]}


def description(attack: StoredAttack) -> dict[str, Any]:
    """The attacked model with its beta, NaN but for VIB, both seeds, mode and confidence."""
    config, given = attack.run.record["config"], settings(attack)
    objective, beta = config["objective"]["name"], config["beta"]
    if objective not in MODELS:
        raise RunError(f"{attack.run.record['run_id']}: no figure has objective={objective}")
    in_mean_mode = objective == "vib" and given["samples"] is None
    return {
        "model": MEAN_MODE if in_mean_mode else MODELS[objective],
        "beta": np.nan if beta is None else beta,
        "seed": config["seed"],
        "attack_seed": given["seed"],
        "mode": given["mode"],
        "confidence": given["confidence"],
    }


def describe_targeted(attacks: list[StoredAttack]) -> pd.DataFrame:
    """Describe the attacks of Figures 3 and 4(a) as `describe`: they all have the same target."""
    described = describe(attacks, vary={"seed"})
    given = settings(attacks[0])
    if given["attack"] != "carlini_wagner_l2" or given["target"] is None:
        raise RunError("Figures 3 and 4(a) need carlini_wagner_l2 with the same target for all")
    return described


def describe(attacks: list[StoredAttack], *, vary: set[str]) -> pd.DataFrame:
    """Describe a panel's attacks, a row each; refuse those that do not belong in one.

    They differ in the model and the settings `vary` alone, and leave no gap. Those in mean mode
    are beside others, perhaps on fewer models.
    """
    described = pd.DataFrame(map(description, attacks), columns=[*MODEL, *CELL])
    models = [*MODELS.values(), MEAN_MODE]
    described["model"] = pd.Categorical(described["model"], models, ordered=True)
    if BASE not in list(described["model"]):
        raise RunError("no attack on a deterministic model (objective=maximum_likelihood)")
    if not (described.loc[described["model"] == VIB, "beta"] > 0).any():
        raise RunError("no attack on a VIB model with beta > 0")
    in_mean_mode = described["model"] == MEAN_MODE
    sampled = [attacks[row] for row in described.index[~in_mean_mode]]
    require_same(sampled, vary=vary)
    require_same([sampled[0], *attacks], vary=vary | {"samples"})
    require_complete(described[~in_mean_mode])
    require_complete(described[in_mean_mode])
    return described


def require_same(attacks: list[StoredAttack], *, vary: set[str]) -> None:
    """Refuse attacks whose settings, or whose models' configurations, differ in other keys."""
    runs.require_same([attack.run for attack in attacks], but=runs.OF_MODEL)
    first = attacks[0]
    of_objective: dict[str, StoredRun] = {}
    for attack in attacks:
        objective = attack.run.record["config"]["objective"]["name"]
        other = of_objective.setdefault(objective, attack.run)
        runs.require_same([other, attack.run], but={"beta", "seed"})
        if keys := runs.different_keys(settings(attack), settings(first)) - vary:
            raise RunError(
                f"attacks on {first.run.record['run_id']} and {attack.run.record['run_id']} "
                f"differ in {', '.join(sorted(keys))}"
            )


def require_complete(described: pd.DataFrame) -> None:
    """Refuse a model that lacks a mode, a confidence or seeds which another has."""
    cells = set(described[CELL].itertuples(index=False, name=None))
    for (model, beta), rows in described.groupby(MODEL, dropna=False, observed=True):
        missing = cells - set(rows[CELL].itertuples(index=False, name=None))
        if missing:
            mode, kappa, seed, attack_seed = min(missing)
            name = f"{model} beta={beta:g}" if model in (VIB, MEAN_MODE) else model
            raise RunError(
                f"{name}, model seed {seed}, lacks what another has: the attack with mode={mode}, "
                f"confidence={kappa:g}, seed={attack_seed}"
            )
