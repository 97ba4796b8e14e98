"""`vibx attack`: finished runs, attacked and re-evaluated; nothing lost, nothing mixed up."""

import json
import os
import shutil
from typing import NamedTuple

import jax
import numpy as np
import pytest

from tests.processes import ROOT, TINY
from tests.robustness.test_config import attack_config
from vibx import cli, config
from vibx.errors import Interrupted
from vibx.robustness import run
from vibx.robustness.run import transfer_source
from vibx.store import RunError, read_runs

QUICK = ["attack.iterations=10", "attack.search_steps=2", "root=runs"]


class Done(NamedTuple):
    """What a command left, as of a completed process."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def trained(cache, finished_run, tmp_path, monkeypatch, capfd):
    """`vibx` in a directory with one finished run, in this process: it has jax, and compiled."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["vibx"])

    def run(*args):
        capfd.readouterr()
        code = 0
        try:
            cli.main(args)
        except SystemExit as stop:
            code = stop.code
        return Done(code, *capfd.readouterr())

    return run


def results(tmp_path):
    found = tmp_path.glob("runs/*/attacks/*/metrics.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def arrays(tmp_path):
    (path,) = tmp_path.glob("runs/*/attacks/*/adversarial.npz")
    with np.load(path) as found:
        return dict(found)


def test_an_attack_leaves_its_arrays_and_its_metrics_and_is_then_skipped(trained, tmp_path):
    done = trained("attack", *QUICK, "n=8")
    assert done.returncode == 0, done.stderr
    ((name, result),) = results(tmp_path).items()
    assert name.startswith("carlini_wagner_l2-untargeted-")
    assert result["n"] == 8
    found = arrays(tmp_path)
    assert found["adversarial"].shape == (8, 784)
    assert found["adversarial"].min() >= 0
    assert found["adversarial"].max() <= 1
    assert (found["votes"].sum(axis=1) == 20).all()
    np.testing.assert_allclose(found["l2"][~found["success"]], 0)
    before = (tmp_path / "runs").rglob("*")
    times = {path: path.stat().st_mtime_ns for path in before if path.suffix in (".npz", ".json")}
    assert trained("attack", *QUICK, "n=8").stdout == done.stdout
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize("attack", ["fgsm", "spsa", "noise"])
def test_attacks_within_a_budget_keep_it(trained, tmp_path, attack):
    steps = ["attack.steps=2", "attack.directions=4"] if attack == "spsa" else []
    options = ["root=runs", f"attack={attack}", "attack.epsilon=0.5", *steps]
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


@pytest.mark.parametrize("mode", ["targeted", "untargeted"])
def test_success_by_votes_comes_with_the_exact_probability(trained, tmp_path, mode):
    """Of an answer of one sample of z: here the votes are such answers too."""
    options = ["attack=carlini_wagner_expected", f"mode={mode}", "n=8", "samples=1"]
    done = trained("attack", *QUICK, *options, "rechecks=2000")
    assert done.returncode == 0, done.stderr
    ((_, result),) = results(tmp_path).items()
    found = arrays(tmp_path)
    assert result["attack"]["attack"]["votes_needed"] == 15
    assert result["goal_probability"] == pytest.approx(found["goal_probability"].mean())
    assert 0 <= result["goal_probability_error"] < 0.01
    goals = found["target" if mode == "targeted" else "label"]
    share = found["votes"][np.arange(8), goals] / 2000
    share = share if mode == "targeted" else 1 - share
    deviation = np.sqrt(share * (1 - share) / 2000 + found["goal_probability_error"] ** 2)
    assert (np.abs(found["goal_probability"] - share) < 4.5 * deviation + 1e-3).all()


def test_an_interrupted_attack_goes_on_behind_its_last_part(trained, tmp_path, monkeypatch):
    sizes, attack_images = [], run.attack_images

    def stopped(classify, cfg, tasks, **options):
        sizes.append(len(tasks.image))
        if len(sizes) == 2:
            raise Interrupted("stopped")
        return attack_images(classify, cfg, tasks, **options)

    monkeypatch.setattr(run, "PART", 5)
    monkeypatch.setattr(run, "attack_images", stopped)
    command = ["attack", "root=runs", "attack=noise", "n=8"]
    assert [trained(*command).returncode for _ in range(2)] == [130, 0]
    assert sizes == [5, 3, 3]  # the first part is not attacked again
    assert list(arrays(tmp_path)["index"]) == list(range(8))
    assert not list(tmp_path.glob("runs/*/attacks/*/parts"))


def test_a_part_is_used_only_as_it_was_written(tmp_path):
    own = {"run_id": "r", "attack": "a", "start": 0}
    run.write_part(tmp_path, own, {"l2": np.arange(3.0)})
    np.testing.assert_array_equal(run.read_part(tmp_path, own)["l2"], np.arange(3.0))
    assert run.read_part(tmp_path, own | {"run_id": "other"}) is None
    (tmp_path / "00000.npz").write_bytes(b"")
    assert run.read_part(tmp_path, own) is None


def test_an_images_key_is_of_its_index_and_the_seed(cache, finished_run):
    (attacked,) = read_runs(finished_run / "runs").runs

    def keys(**changes):
        tasks, _ = run.attack_tasks(attacked, attack_config(**changes))
        return np.asarray(jax.random.key_data(tasks.key))

    some = keys(images=(3, 10))
    np.testing.assert_array_equal(keys(images=(10,)), some[1:])
    assert (keys(images=(3, 10), seed=1) != some).any(axis=1).all()


def test_a_sweep_of_attacks_goes_on_behind_one_that_fails(trained, tmp_path):
    done = trained("attack", "-m", "root=runs", "attack=noise", "n=3", "weights=nowhere,null")
    assert done.returncode == 1
    assert "1 of 2 failed: weights=nowhere: must be the directory" in done.stderr
    assert len(results(tmp_path)) == 1


def test_where_answers_are_not_sampled_there_is_no_exact_probability(trained, tmp_path):
    options = ["attack=carlini_wagner_expected", "n=3", "samples=null"]
    assert trained("attack", *QUICK, *options).returncode == 0
    ((_, result),) = results(tmp_path).items()
    assert result["goal_probability"] is result["goal_probability_error"] is None
    assert "goal_probability" not in arrays(tmp_path)


def test_an_audit_keeps_its_checks_and_is_then_skipped(trained, tmp_path):
    options = ["attack=audit", "n=6", "rechecks=4", "attack.iterations=10", "attack.search_steps=2"]
    quick = ["attack.pgd_steps=2", "attack.spsa_steps=2", "attack.spsa_directions=4"]
    other = ["train", *TINY, "data.train_images=2000", "optimizer.learning_rate=1e-2", "seed=1"]
    assert trained(*other).returncode == 0
    audited, source = sorted(path.name for path in (tmp_path / "runs").iterdir())
    command = ["attack", "root=runs", f"runs={audited}", *options, *quick]
    command += ["attack.transfer_from=seed=1"]
    done = trained(*command)
    assert done.returncode == 0, done.stderr
    ((name, result),) = results(tmp_path).items()
    assert name.startswith("audit-untargeted-")
    assert result["transfer_from"] == source
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


@pytest.mark.parametrize("learning_rates", [("1e-2", "1e-3"), ("1e-3", "1e-4")])
def test_the_transfer_is_from_one_other_run(trained, tmp_path, learning_rates):
    """Of two the one of the same recipe; not from the audited run itself."""
    for rate in learning_rates:
        model = ["objective=maximum_likelihood", "data.train_images=2000", f"seed={len(rate)}"]
        trained("train", *TINY, *model, f"optimizer.learning_rate={rate}")
    stored = {run.directory.name: run for run in read_runs(tmp_path / "runs").runs}
    (vib,) = (run for name, run in stored.items() if name.startswith("vib"))
    sources = [run for run in stored.values() if run is not vib]
    conditions = "objective=maximum_likelihood"
    for source in sources:
        assert transfer_source(source, conditions) is None
    if "1e-2" in learning_rates:
        found = transfer_source(vib, conditions)
        assert found.record["config"]["optimizer"]["learning_rate"] == 1e-2
    else:
        with pytest.raises(RunError, match="has to be one run"):
            transfer_source(vib, conditions)
    with pytest.raises(RunError, match="no finished run"):
        transfer_source(vib, "objective=dropout")


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
    for group in ("attack", "experiment", "scale"):
        names = sorted(path.stem for path in (config.directory("attack") / group).glob("*.yaml"))
        assert f"{group}: {', '.join(names)}" in done.stdout


def test_a_run_without_weights_says_what_to_do(trained, tmp_path):
    (checkpoints,) = tmp_path.glob("runs/*/checkpoints")
    checkpoints.rename(tmp_path / "elsewhere")
    done = trained("attack", *QUICK, "n=5")
    assert done.returncode == 2
    assert "has no weights: train that run again with force=true" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("mode=gentle", "mode=gentle: must be one of untargeted, targeted"),
        ("target=3", "target=3: must be null unless mode=targeted"),
        ("n=0", "n=0: must be at least 1"),
        ("n=10001", "n=10001: must be at most 10000, the test images of mnist"),
        ("attack.iterations=105", "attack.iterations=105: must be a multiple of 10"),
        ("attack.votes_needed=2", "attack.votes_needed=2: must be at most 1, the votes"),
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


FADE = {
    "settings": """

@choice("attack", "fade")
@dataclass(frozen=True, kw_only=True)
class Fade(Attack):
    amount: float = traced()

    def __post_init__(self) -> None:
        require_positive(self, "amount")
""",
    "code": """
from vibx.attacks.per_image import Adversarial, perturb
from vibx.attacks.settings import Fade


@perturb.register(Fade)
def _(settings: Fade, classify, tasks, *, on_progress) -> Adversarial:
    return Adversarial(tasks.image * (1 - settings.amount), {})
""",
    "yaml": "name: fade\namount: 0.5\n",
}


def test_a_new_attack_is_its_settings_its_code_and_its_yaml(vibx_program, finished_run, tmp_path):
    """Laid out as an installed package is."""
    code = tmp_path / "code"
    for directory, place in (("vibx", "."), ("conf", "vibx"), ("hydra_plugins", ".")):
        shutil.copytree(ROOT / directory, code / place / directory)
    with (code / "vibx" / "attacks" / "settings.py").open("a") as file:
        file.write(FADE["settings"])
    (code / "vibx" / "attacks" / "fade.py").write_text(FADE["code"])
    (code / "vibx" / "conf" / "attack" / "attack" / "fade.yaml").write_text(FADE["yaml"])
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(code)}
    done = vibx_program("attack", "root=runs", "attack=fade", "n=6", env=environment)
    assert done.returncode == 0, done.stderr
    assert "fade, untargeted" in done.stdout
    found = arrays(tmp_path)
    np.testing.assert_allclose(found["adversarial"], found["original"] / 510, atol=1e-6)
    bad = vibx_program("attack", "root=runs", "attack=fade", "attack.amount=0", env=environment)
    assert "attack.amount=0.0: must be finite and > 0" in bad.stderr
    assert ", fade, " in vibx_program("attack", "--help", env=environment).stdout


def test_images_of_another_shape_and_number_of_classes(trained, tmp_path):
    pytest.importorskip("vibx.data.arrays")
    draw = np.random.default_rng(0)
    images = {"train": draw.integers(0, 256, (100, 16, 16, 3), np.uint8)}
    images["test"] = draw.integers(0, 256, (36, 16, 16, 3), np.uint8)
    labels = {name: np.arange(len(values)) % 4 for name, values in images.items()}
    arrays_of = {f"{name}_images": values for name, values in images.items()}
    arrays_of |= {f"{name}_labels": values for name, values in labels.items()}
    np.savez(tmp_path / "small.npz", **arrays_of)
    tiny = ["encoder.widths=[16]", "K=12", "batch_size=20", "epochs=1", "root=small"]
    assert trained("train", "data=arrays", "data.path=small.npz", *tiny).returncode == 0
    done = trained("attack", "root=small", "n=1000")
    assert done.returncode == 2
    assert "n=1000: must be at most 36, the test images of arrays" in done.stderr
    assert not list(tmp_path.glob("small/*/attacks"))
    done = trained("attack", *QUICK[:2], "root=small", "n=5", "mode=targeted")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("small/*/attacks/*/adversarial.npz")
    with np.load(path) as found:
        assert found["adversarial"].shape == (5, 768)
        assert found["votes"].shape == (5, 4)
        assert (found["target"] != found["label"]).all()
        assert found["target"].max() < 4
        np.testing.assert_array_equal(found["original"], images["test"][:5].reshape(5, -1))
