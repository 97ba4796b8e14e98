"""`vibx attack`: finished runs, attacked and asked again; nothing lost, nothing mixed up."""

import json
import os
import shutil
import signal
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import VIBX
from tests.test_cli import TINY, wait_for
from vibx import config
from vibx.commands.figures import ATTACKS
from vibx.robustness.config import AttackConfig, Noise
from vibx.robustness.run import summary, targets_of

QUICK = ["attack.iterations=10", "attack.search_steps=2", "root=runs"]


def attack_config(**changes):
    defaults = {
        "mode": "targeted",
        "target": None,
        "n": 50,
        "images": None,
        "samples": 12,
        "seed": 0,
        "rechecks": 4,
        "attack": Noise("noise", "l2", 1.0),
    }
    return AttackConfig(**{**defaults, **changes})


@pytest.fixture(scope="module")
def finished_run(preparation, tmp_path_factory):
    """A directory with a store of one finished run."""
    directory = tmp_path_factory.mktemp("trained")
    subprocess.run(
        [VIBX, "train", *TINY, "data.train_images=2000", "optimizer.learning_rate=1e-2"],
        env={**os.environ, "VIBX_DATA_DIR": str(preparation[0])},
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return directory


@pytest.fixture
def trained(vibx, finished_run, tmp_path):
    """`vibx` in a directory with one finished run."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    return vibx


def results(tmp_path):
    found = tmp_path.glob("runs/*/attacks/*/metrics.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def arrays(tmp_path):
    (path,) = tmp_path.glob("runs/*/attacks/*/adversarial.npz")
    with np.load(path) as found:
        return dict(found)


def test_an_attack_leaves_its_arrays_and_its_metrics_and_is_then_skipped(trained, tmp_path):
    done = trained("attack", *QUICK, "n=20")
    assert done.returncode == 0, done.stderr
    ((name, result),) = results(tmp_path).items()
    assert name.startswith("carlini_wagner_l2-untargeted-")
    assert result["n"] == 20
    found = arrays(tmp_path)
    assert found["adversarial"].shape == (20, 784)
    assert found["adversarial"].min() >= 0
    assert found["adversarial"].max() <= 1
    assert (found["votes"].sum(axis=1) == 20).all()
    np.testing.assert_allclose(found["l2"][~found["success"]], 0)
    before = (tmp_path / "runs").rglob("*")
    times = {path: path.stat().st_mtime_ns for path in before if path.suffix in (".npz", ".json")}
    assert trained("attack", *QUICK, "n=20").stdout == done.stdout
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "spsa", "noise"])
def test_attacks_within_a_budget_keep_it(trained, tmp_path, attack):
    steps = {"pgd": ["attack.steps=3"], "spsa": ["attack.steps=2", "attack.directions=4"]}
    options = ["root=runs", f"attack={attack}", "attack.epsilon=0.5", *steps.get(attack, [])]
    done = trained("attack", *options, "images=[3,10,13]", "mode=targeted", "target=1")
    assert done.returncode == 0, done.stderr
    ((_, result),) = results(tmp_path).items()
    assert result["accuracy_seen"] is None
    found = arrays(tmp_path)
    assert list(found["index"]) == [3, 10, 13]
    assert list(found["label"]) == [0, 0, 0]
    assert list(found["target"]) == [1, 1, 1]
    norm = "linf" if attack == "fgsm" else "l2"
    assert (found[norm] <= 0.5 + 1e-5).all()


def test_a_killed_attack_keeps_its_parts_and_comes_to_the_same(trained, tmp_path):
    command = [*QUICK, "n=260", "rechecks=2", "attack.search_steps=4"]
    process = subprocess.Popen(
        [VIBX, "attack", *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for(lambda: list(tmp_path.glob("runs/*/attacks/*/parts/00000.npz")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not results(tmp_path)
    assert trained("attack", *command).returncode == 0
    resumed = arrays(tmp_path)
    assert trained("attack", *command, "force=true").returncode == 0
    whole = arrays(tmp_path)
    for name in whole:
        np.testing.assert_array_equal(resumed[name], whole[name])
    assert not list(tmp_path.glob("runs/*/attacks/*/parts"))


def test_an_audit_keeps_its_checks_and_is_then_skipped(trained, tmp_path):
    options = ["attack=audit", "n=6", "rechecks=4", "attack.iterations=10", "attack.search_steps=2"]
    quick = ["attack.pgd_steps=2", "attack.spsa_steps=2", "attack.spsa_directions=4"]
    command = ["attack", "root=runs", *options, *quick, "attack.transfer_from=seed=0"]
    done = trained(*command)
    assert done.returncode == 0, done.stderr
    ((name, result),) = results(tmp_path).items()
    assert name.startswith("audit-untargeted-")
    checks = {check["name"]: check for check in result["checks"]}
    assert len(checks) == 11
    for check in checks.values():
        assert check["name"].split()[0] in done.stdout
        assert isinstance(check["passed"], bool)
    again = trained(*command)
    assert again.stdout == done.stdout
    without = trained(*command[:-1], "attack.transfer_from=null")
    assert without.returncode == 0, without.stderr
    numbers = [len(found["checks"]) for found in results(tmp_path).values()]
    assert sorted(numbers) == [10, 11]


def test_an_audit_of_images_that_are_at_their_target_says_so(trained):
    audit = ["attack", "root=runs", "attack=audit", "attack.transfer_from=null"]
    done = trained(*audit, "images=[3]", "mode=targeted", "target=0")
    assert done.returncode == 2
    assert "none of 1 images is right before the attack" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_audit_names_the_key_of_the_model_that_is_not_there(trained):
    done = trained("attack", "root=runs", "attack=audit")
    assert done.returncode == 2
    assert "error: attack.transfer_from=objective=maximum_likelihood" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_names_every_attack_and_experiment(trained):
    done = trained("attack", "--help")
    names = {path.stem for path in (config.directory("attack") / "attack").glob("*.yaml")}
    for name in (*names, *ATTACKS):
        assert name in done.stdout


def test_a_run_without_weights_says_what_to_do(trained, tmp_path):
    (checkpoints,) = tmp_path.glob("runs/*/checkpoints")
    checkpoints.rename(tmp_path / "elsewhere")
    done = trained("attack", *QUICK, "n=5")
    assert done.returncode == 2
    assert "has no checkpoints: train that run again with force=true" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("mode=gentle", "mode=gentle: must be one of untargeted, targeted"),
        ("target=3", "target=3: must be null unless mode=targeted"),
        ("n=0", "n=0: must be between 1 and 10000"),
        ("attack.iterations=105", "attack.iterations=105: must be a multiple of 10"),
        ("attack.confidence=-1", "attack.confidence=-1.0: must be finite and >= 0"),
        ("images=[10000]", "images=[10000]: must be indices below 10000"),
        ("attack=bribery", "bribery"),
        ("attak=pgd", "no such key: attak; vibx attack --help lists them"),
        ("experiment=bribery", "bribery"),
        ("runs=beta=7", "runs=beta=7: no finished run in runs matches"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(trained, tmp_path, bad, message):
    done = trained("attack", "root=runs", bad)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("runs/*/attacks"))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9999), min_size=1, unique=True))
def test_targets_are_wrong_classes_that_an_image_has_whichever_others_are_there(seed, indices):
    labels = jnp.asarray([index % 10 for index in indices])
    targets = targets_of(labels, attack_config(seed=seed, images=tuple(indices)))
    assert (targets != labels).all()
    assert ((targets >= 0) & (targets < 10)).all()
    alone = targets_of(labels[-1:], attack_config(seed=seed, images=(indices[-1],)))
    assert alone[0] == targets[-1]


def test_what_the_attack_saw_and_what_holds_are_counted_apart():
    """Four images: held, seen to fall and fell, seen to fall and did not, wrong from the start."""
    votes = {"right": [4, 0], "wrong": [0, 4]}
    found = summary(
        {
            "label": np.zeros(4, int),
            "target": np.full(4, -1),
            "success": np.array([False, True, True, True]),
            "votes_before": np.array([votes["right"]] * 3 + [votes["wrong"]]),
            "votes": np.array([votes["right"], votes["wrong"], votes["right"], votes["wrong"]]),
            **{n: np.array([9.0, 1, 2, 0]) for n in ("l2", "linf", "l0_8_bits", "l0_visible")},
        }
    )
    assert found["accuracy_before"] == 0.75
    assert found["misclassified_before"] == 1
    assert found["successes_seen"] == 3
    assert found["accuracy_seen"] == 0.25
    assert found["accuracy_recheck"] == 0.5
    assert found["goal_recheck"] == 0.5
    assert found["l2_median"] == 1
