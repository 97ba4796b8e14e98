"""Which records a `runs=` condition stands for, and that no damaged one is read in silence."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.files import flip_a_bit
from tests.records import write_attack, write_run
from vibx import store
from vibx.errors import DamagedError
from vibx.evaluation.measure import measures
from vibx.experiments import expand, expand_attacks
from vibx.files import write_sealed
from vibx.report.verification import differences, run_problems
from vibx.store import RunError, matching


def record(objective, **numbers):
    beta = numbers["beta"]
    return {
        "run_id": f"{objective}-beta{beta}-seed{numbers['seed']}",
        "config": {**numbers, "objective": {"name": objective}, "data": {"validation": 0}},
    }


RECORDS = [
    *(record("vib", beta=beta, seed=seed) for beta in (0.0, 0.001, 0.01) for seed in (0, 1)),
    {"run_id": "dropout", "config": {"seed": 0, "objective": {"name": "dropout", "rate": 0.1}}},
]


@pytest.mark.parametrize(
    ("conditions", "number"),
    [
        ("", 7),
        ("beta=1e-3", 2),
        ("beta=1e-3,seed=1", 1),
        ("beta=1e-3, seed=1", 1),
        ("objective=vib", 6),
        ("objective.rate=0.1", 1),
        ("data.validation=0", 6),
        ("dropout", 1),
        ("vib,seed1", 3),
        ("vib,dropout", 0),
        ("beta=0,beta=1e-3", 4),
        ("beta=0,seed=1,beta=1e-3", 2),
        ("beta=7", 0),
    ],
)
def test_conditions_pick_records(conditions, number):
    found = matching(RECORDS, conditions)
    assert len(found) == number
    assert [found_record for found_record in RECORDS if found_record in found] == found


def test_a_key_that_no_run_has_is_named():
    with pytest.raises(RunError, match="runs=betta=1: no run has the key betta"):
        matching(RECORDS, "betta=1")


# Damage


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store of two runs with all that a run can leave, an attack on each, and an evaluation."""
    root = tmp_path_factory.mktemp("sound")
    for cfg in expand("figure2", scale="smoke")[:2]:
        run = write_run(root, cfg)
        store.write_history(run.directory, [{"epoch": 1, "seconds": cfg.beta}])
        record = store.write_record(run.directory, run.record)
        run = run._replace(record=record)
        for number in (5, 6):
            attack = next(a for _, a in expand_attacks("figure3", scale="smoke"))
            size = 0.1 + cfg.beta / 10 + number / 100
            write_attack(run, dataclasses.replace(attack, seed=number), size=size)
        store.write_evaluation(run, {"test": {"error_mc": cfg.beta}}, mc_samples=7)
        checkpoint(run.directory, epoch=cfg.epochs)
    return root


def checkpoint(directory, *, epoch):
    """As a run leaves one, with made-up arrays."""
    path = directory / store.CHECKPOINTS / str(epoch)
    path.mkdir(parents=True)
    (path / "state").write_bytes(np.random.default_rng(list(directory.name.encode())).bytes(3000))
    content = {"run_id": directory.name, "epoch": epoch, "history": []}
    write_sealed(path / store.MANIFEST, content, files=["state"])


@pytest.fixture
def damaged(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    return tmp_path


def problems_of(root):
    found = store.read_runs(root)
    return found.problems + [line for run in found.runs for line in run_problems(run)]


def truncate(path, other):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path, other):
    flip_a_bit(path, bit=2)


def empty(path, other):
    path.write_bytes(b"")


def swap(path, other):
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def all_files(root):
    first, second = sorted(root.iterdir())
    names = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert {path.name for path in names} >= {*store.LEFT[:5], store.METRICS, store.MANIFEST}
    return [(first / name, second / name) for name in names]


def test_a_sound_store_has_no_problems(sound):
    assert problems_of(sound) == []


@pytest.mark.parametrize("damage", [truncate, flip, empty, swap])
def test_every_damaged_file_is_named_in_one_line(damaged, damage):
    for path, other in all_files(damaged):
        whole = path.read_bytes(), other.read_bytes()
        damage(path, other)
        lines = problems_of(damaged)
        assert any(str(path) in line or str(path.parent) in line for line in lines), (path, lines)
        assert len(lines) == (2 if damage is swap else 1), lines
        assert not any("\n" in line for line in lines)
        path.write_bytes(whole[0])
        other.write_bytes(whole[1])
    assert problems_of(damaged) == []


def test_what_a_drawing_reads_is_refused_where_it_is_damaged(damaged):
    run, _ = store.read_runs(damaged).runs
    flip(run.directory / store.PREDICTIONS, None)
    with pytest.raises(DamagedError, match=f"{run.directory.name}/predictions.npz: damaged"):
        store.read_arrays(run, store.PREDICTIONS)


@pytest.mark.parametrize(
    "path", [store.METRICS, store.CONFIG, store.PREDICTIONS, store.ATTACKS, store.CHECKPOINTS]
)
def test_two_runs_with_each_others_files_are_both_named(damaged, path):
    first, second = sorted(damaged.iterdir())
    (first / path).rename(damaged / "aside")
    (second / path).rename(first / path)
    (damaged / "aside").rename(second / path)
    lines = problems_of(damaged)
    for directory in (first, second):
        assert any(str(directory / path) in line for line in lines), lines


def test_attacks_of_one_run_with_each_others_results_are_named(damaged):
    attacks = sorted((sorted(damaged.iterdir())[0] / store.ATTACKS).iterdir())
    (attacks[0] / store.METRICS).rename(damaged / "aside")
    (attacks[1] / store.METRICS).rename(attacks[0] / store.METRICS)
    (damaged / "aside").rename(attacks[1] / store.METRICS)
    lines = problems_of(damaged)
    assert sum("has the configuration of" in line for line in lines) == 2


@pytest.mark.parametrize(
    "edit",
    [
        lambda record: record["test"].update(error_mc=0.0),
        lambda record: record["config"].update(beta=0.5),
        lambda record: record.update(test={}),
        lambda record: record["test"].update(error_mc="0.01"),
        lambda record: record.pop("sha256"),
        lambda record: record["files"].pop(store.PREDICTIONS),
    ],
)
def test_a_record_edited_by_hand_is_named_and_the_others_are_found(damaged, edit):
    first, second = sorted(damaged.iterdir())
    record = json.loads((first / store.METRICS).read_text())
    edit(record)
    (first / store.METRICS).write_text(json.dumps(record))
    found = store.read_runs(damaged)
    assert [run.directory for run in found.runs] == [second]
    assert [str(first / store.METRICS) in line for line in found.problems] == [True]


@pytest.mark.parametrize("content", ["[]", "{}", "1", "null", "", "[" * 5000, "\x00", "{'a': 1}"])
def test_what_is_no_record_is_named(damaged, content):
    first, _ = sorted(damaged.iterdir())
    (first / store.METRICS).write_text(content)
    (problem,) = store.read_runs(damaged).problems
    assert problem.startswith(f"{first / store.METRICS}: ")
    assert "\n" not in problem


def test_a_record_sealed_anew_with_other_numbers_does_not_fit_its_files(damaged):
    run, _ = store.read_runs(damaged).runs
    run.record["test"]["error_mc"] += 0.0001
    run.record["config"]["seed"] += 1
    store.write_record(run.directory, run.record)
    lines = " ".join(problems_of(damaged))
    assert "predictions.npz: gives error_mc=" in lines or "has the configuration of" in lines
    run.record["config"]["seed"] -= 1
    store.write_record(run.directory, run.record)
    (line,) = problems_of(damaged)
    assert "predictions.npz: gives error_mc=" in line


@pytest.mark.parametrize("scale", ["fast", "paper"])
def test_the_committed_records_are_as_they_were_written(scale):
    root = Path(__file__).parents[1] / "outputs" / "paper" / scale
    assert len(store.read_runs(root).runs) >= 11
    assert problems_of(root) == []


def test_numbers_computed_again_may_differ_by_rounding_alone():
    section = {m.name: 0.5 for m in measures()} | {"n": 10_000}
    record = {"run_id": "r", "test": section, "train": section}
    same = section | {"error_mc": 0.5002, "rate_bits": 0.50001}
    assert list(differences(record, {"test": same})) == []
    (line,) = differences(record, {"test": section | {"error_mc": 0.502}})
    assert line.startswith("r: its weights give test error_mc=0.502, its record says 0.5")


# A record that is made anew


def make_anew(directory, content):
    with store.working(directory, work="made", force=True) as place:
        (place / "sub").mkdir(exist_ok=True)
        (place / "sub" / "file").write_text(content)
        write_sealed(place / store.METRICS, {"content": content}, files=())


def fail_anew(directory):
    with store.working(directory, work="made", force=True) as place:
        (place / "sub").mkdir()
        (place / "sub").mkdir()


def test_the_old_record_stays_until_the_new_one_is_whole(tmp_path):
    directory = tmp_path / "run"
    make_anew(directory, "old")
    (directory / "attacks").mkdir()
    with pytest.raises(OSError, match="File exists"):
        fail_anew(directory)
    assert json.loads((directory / store.METRICS).read_text())["content"] == "old"
    assert (directory / "sub" / "file").read_text() == "old"
    make_anew(directory, "new")
    assert (directory / "sub" / "file").read_text() == "new"
    assert json.loads((directory / store.METRICS).read_text())["content"] == "new"
    assert {path.name for path in directory.iterdir()} == {store.LOCK, store.METRICS, "sub"}


def test_a_process_killed_while_it_replaces_a_record_loses_neither(tmp_path, monkeypatch):
    """Killed before each of the renames and removals, then taken up again.

    What is finished meanwhile is whole: the old record or the new one.
    """
    listed = Path.iterdir  # in no order: the record may come last
    killed = 0
    while True:
        directory = tmp_path / str(killed)
        make_anew(directory, "old")
        again = directory / store.AGAIN
        shutil.copytree(directory, again, ignore=shutil.ignore_patterns(store.LOCK))
        (again / "sub" / "file").write_text("new")
        write_sealed(again / store.METRICS, {"content": "new"}, files=())
        with monkeypatch.context() as patch:
            steps = itertools.count()
            for cls, name in (
                (Path, "rename"),
                (Path, "replace"),
                (Path, "unlink"),
                (Path, "rmdir"),
            ):
                patch.setattr(cls, name, killing(getattr(cls, name), steps, at=killed))
            patch.setattr(
                Path, "iterdir", lambda p: sorted(listed(p), key=lambda q: q.name == store.METRICS)
            )
            with contextlib.suppress(KeyboardInterrupt):
                store.take_over(directory)
        if store.is_finished(directory):
            recorded = json.loads((directory / store.METRICS).read_text())["content"]
            assert (directory / "sub" / "file").read_text() == recorded
        store.take_over(directory)
        assert (directory / "sub" / "file").read_text() == "new"
        assert {p.name for p in directory.iterdir()} == {store.LOCK, store.METRICS, "sub"}
        if next(steps) <= killed:
            break
        killed += 1
    assert killed >= 4


def killing(function, steps, *, at):
    def step(*args, **options):
        if next(steps) == at:
            raise KeyboardInterrupt
        return function(*args, **options)

    return step


def test_the_commit_is_that_of_the_package_and_not_of_a_project_around_it(tmp_path):
    """As where a project's repository has the environment in it that vibx is installed in."""
    package = tmp_path / "environment" / "vibx"
    shutil.copytree(Path(store.__file__).parent, package)
    (tmp_path / ".gitignore").write_text("environment\n")
    author = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    script = "import vibx.store; print(vibx.store.__file__, vibx.store._git_commit())"
    env = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = [sys.executable, "-c", script]
    said = subprocess.run(done, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert said.stdout == f"{package / 'store.py'} None\n"


@pytest.mark.parametrize(("changed", "said"), [("", "abc"), (" M store.py", "abc+")])
def test_the_commit_of_a_changed_package_is_marked(monkeypatch, changed, said):
    answers = {"rev-parse": "abc", "status": changed}
    monkeypatch.setattr(store, "_git", lambda verb, *_: answers.get(verb, ""))
    assert store._git_commit() == said
