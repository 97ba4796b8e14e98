"""Command lines drawn from the schemas: each is carried out, or refused in a line.

Everything is real, in this process, up to the point where work would start.
"""

import contextlib
import copy
import dataclasses
import functools
import io
import signal
import sys
import types
import typing
from pathlib import Path

import pytest
from hydra._internal.config_repository import ConfigRepository
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.faults.scale import FULL, times
from vibx import cli, store
from vibx.choices import GROUPS
from vibx.commands import evaluate, export, figures, runs, train
from vibx.config import Config, Execution, directory
from vibx.robustness.config import AttackConfig, AttackExecution

SCHEMAS = {
    "train": (Config, Execution),
    "attack": (AttackConfig, AttackExecution),
    "evaluate": (evaluate.Evaluation,),
    "export": (export.Export,),
    "figures": (figures.Figures,),
    "runs": (runs.Listing,),
}
TRIED = times(2000, short=25)


class Started(BaseException):
    """Work would start here."""


@pytest.fixture(scope="module")
def up_to_the_work():
    """Work does not start, and a yaml is read once."""

    def start(*_, **__):
        raise Started

    read = functools.cache(ConfigRepository.load_config)
    shared = types.SimpleNamespace(repository=None)

    def load_config(repository, config_path):
        key = [(source.provider, source.path) for source in repository.sources]
        if shared.repository is None or key != shared.key:
            shared.repository, shared.key = repository, key
        return copy.deepcopy(read(shared.repository, config_path))

    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", load_config)
        patch.setattr(train, "launch", start)
        patch.setattr(store, "select", start)
        patch.setattr(store, "read_runs", start)
        patch.setattr(figures, "Archive", start)
        patch.setattr(sys, "argv", sys.argv)
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def carried_out(words):
    """Exit code (None: work would have started), stdout and stderr of a command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(words)
            code = 0
        except Started:
            code = None
        except SystemExit as exited:
            code = exited.code or 0
    return code, out.getvalue(), err.getvalue()


def groups(command):
    return sorted(p.name for p in directory(command).iterdir() if p.is_dir() and p.name != "hydra")


def choices(command, group):
    return sorted(file.stem for file in (directory(command) / group).glob("*.yaml"))


@functools.cache
def typed_keys(command):
    """Every key of a command with its type, those of all choices among them."""
    found = []
    for schema in SCHEMAS[command]:
        hints = typing.get_type_hints(schema)
        found += [(f.name, hints[f.name]) for f in dataclasses.fields(schema)]
    for group in groups(command):
        for schema in set(GROUPS.get(group, {}).values()):
            hints = typing.get_type_hints(schema)
            found += [(f"{group}.{f.name}", hints[f.name]) for f in dataclasses.fields(schema)]
    return sorted(set(found), key=str)


# Values, as words of a command line

INTEGERS = st.sampled_from([0, 1, 2, 7, 12, 10, 100, -1, 2**31 - 1, 2**31, 2**32, 10**30])
FLOATS = st.sampled_from(
    [
        "0",
        "-0.0",
        "1",
        "0.5",
        "1e-3",
        "0.999999999",
        "1e-30",
        "1e-46",
        "1e-300",
        "1e30",
        "1e38",
        "1e39",
        "1e308",
        "-1",
        "inf",
        "-inf",
        "nan",
    ]
)
TEXTS = st.sampled_from(
    [
        "x",
        "",
        "a b",
        "ünï",
        "~/x",
        "a,b",
        "a=b",
        "'",
        '"',
        "[",
        "{",
        "$",
        "${",
        "(",
        "/",
        "\\",
        "é,[1",
    ]
) | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=5)
ANYTHING = st.one_of(
    INTEGERS.map(str),
    FLOATS,
    TEXTS,
    st.sampled_from(
        """null|true|false|???|[]|[1,1]|[1,a]|{a:1}|[[1]]|64|${beta}|${nope}|${K}|${oc.env:NOPE}|
${hydra:job.name}|${eval:1}|range(0)|range(3)|choice(1,2)|interval(0,1)|glob(*)|sort(2,1)|1,2|
shuffle(range(2))|str(1)|float(1)|tag(a,1)|extend_list(1)|1,abc|1,-1""".replace("\n", "").split("|")
    ),
)


def right(hint):
    """Values of a type, as words of a command line."""
    if isinstance(hint, types.UnionType):
        return st.one_of([right(option) for option in typing.get_args(hint)])
    if typing.get_origin(hint) is tuple:
        item = right(typing.get_args(hint)[0])
        return st.lists(item, max_size=3).map(lambda values: f"[{','.join(values)}]")
    return {
        int: INTEGERS.map(str),
        float: FLOATS,
        bool: st.sampled_from(["true", "false"]),
        types.NoneType: st.just("null"),
    }.get(hint, TEXTS)


FLAGS = st.sampled_from(
    [
        flag.split()
        for flag in """
-m|--multirun|--cfg job|--cfg hydra|--cfg=all|-c nope|--resolve|--help|--hydra-help|--version|-r
-p nope|--package=encoder|-sc|-sc query=bash|-sc install=nope|--experimental-rerun=x|--info
-i nope|--nope|--beta=1|-x|-cn nope|-cp nope|-cd nope|--cfg|--|-|--multi|hydra.job.chdir=true
hydra.mode=MULTIRUN|hydra.mode=x|hydra.verbose=x|hydra.launcher.runs_at_once=0
hydra.launcher.runs_at_once=1.5|hydra/launcher=basic|hydra/launcher=nope|hydra=x
hydra.sweeper.params={a:1}|+hydra.sweeper.params.seed=range(0)|hydra.run.dir=${nope}
hydra/sweeper=null|hydra.output_subdir=x|hydra.run.dir=x|hydra={a:1}|hydra.nope=1|hydra.sweep=1
""".strip()
        .replace("\n", "|")
        .split("|")
    ]
)


@st.composite
def command_lines(draw):
    command = draw(st.sampled_from(["train"] * 4 + ["attack"] * 2 + sorted(SCHEMAS)))
    keys = typed_keys(command)
    words = [command]
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["right"] * 4 + ["wrong", "choice", "misspelt", "flag"]))
        key, hint = draw(st.sampled_from(keys))
        if kind == "flag":
            words += draw(FLAGS)
        elif kind == "choice" and groups(command):
            group = draw(st.sampled_from(groups(command)))
            names = st.sampled_from([*choices(command, group), "null", "nope", "", "1"])
            name = draw(names) if draw(st.booleans()) else f"{draw(names)},{draw(names)}"
            words.append(draw(st.sampled_from(["", "", "", "+", "~"])) + f"{group}={name}")
        elif kind == "right":
            values = draw(st.lists(right(hint), min_size=1, max_size=2 if "-m" in words else 1))
            words.append(f"{key}={','.join(values)}")
        elif kind == "wrong":
            words.append(f"{key}={draw(ANYTHING)}")
        else:
            sign = draw(st.sampled_from(["+", "++", "~", "", "=", " "]))
            end = draw(st.sampled_from(["", "e", ".x", "@y", "@_global_", ":z", "="]))
            words.append(sign + key[draw(st.integers(0, 1)) :] + end + f"={draw(ANYTHING)}")
    return words


def test_whatever_is_typed_is_carried_out_or_refused_in_a_line(
    up_to_the_work, tmp_path, monkeypatch, tally
):
    monkeypatch.chdir(tmp_path)
    seen = {"started": 0, "refused": 0, "shown": 0}

    # Shrinking would take minutes: words are few.
    @settings(
        max_examples=TRIED,
        derandomize=not FULL,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(words=command_lines())
    def check(words):
        code, out, err = carried_out(words)
        lines = [line for line in err.splitlines() if not line.startswith("note: ")]
        assert list(tmp_path.iterdir()) == []
        if code == 2:
            assert len(lines) == 1, err
            assert lines[0].startswith((f"vibx {words[0]}: error: ", "package ")), err
            assert len(lines[0]) < 600
            assert out == ""
        else:
            assert code in (0, None), (code, err)
            assert lines == [], err
        seen["refused" if code == 2 else "started" if code is None else "shown"] += 1

    check()
    assert seen["started"], seen
    assert seen["refused"], seen
    tally("command line", tried=sum(seen.values()))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train data=null", "data=null: must be one of arrays, "),
        ("train =1", "=1: cannot be read"),
        ("train root=null", "root=null: must be a text"),
        ("train root=", "root=: must be a path"),
        ("figures output=", "output=: must be a path"),
        ("train encoder.widths=64", "encoder.widths=64: must be a list"),
        ("evaluate mc_samples=1.5", "mc_samples=1.5: must be a whole number"),
        ("train beta=1e308", "beta=1e+308: must be 0, or between 1.18e-38 and 3.4e+38"),
        ("train optimizer.average_decay=1e-300", "optimizer.average_decay=1e-300: must be 0, or"),
        ("train objective=dropout objective.rate=0.999999999", "objective.rate=1.0: must be in"),
        ("train epochs=2147483647", "epochs=2147483647: must be at most 3579139"),
        ("train beta=${nope}", "beta: Interpolation key 'nope' not found"),
        ("train ~seed", "seed: must be given, a whole number"),
        ("train experiment=figure3", "experiment=figure3 is vibx attack's: vibx attack exp"),
        ("train experiment=nope", "experiment=nope: must be one of figure1, "),
        ("train -m experiment=figure1,table1", "experiment=figure1,table1: must be one: "),
        ("train experiment=[figure1,table1]", "experiment=[figure1,table1]: must be one: "),
        ("attack -m scale=fast,smoke", "scale=smoke: a choice that is a sweep of its own "),
        ("train beta=1,2", "beta=1,2: several values are a sweep, vibx train -m"),
        ("train -m seed=range(0)", "seed=range(0): a sweep over no values"),
        ("train -m hydra.launcher.runs_at_once=1.5", "hydra.launcher.runs_at_once=1.5: must be a"),
        ("train -m hydra.sweeper.params={a:1}", "no such key: a"),
        ("runs -m", "vibx runs has no sweeps"),
        ("runs +foo=1", "no such key: foo"),
        ("evaluate +foo=1", "no such key: foo"),
        ("train --cfg foo", "argument --cfg/-c: invalid choice: 'foo'"),
        ("train --beta=1", "unrecognized arguments: --beta=1"),
        ("train --resolve", "--resolve goes with --cfg or --help"),
        ("train -sc", "--shell-completion goes with one of"),
        ("train --experimental-rerun=x", "--experimental-rerun: "),
        ("attack images=[1,1]", "images=[1, 1]: must be indices, each of them once"),
    ],
)
def test_a_slip_is_refused_by_its_name(up_to_the_work, tmp_path, monkeypatch, line, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = carried_out(line.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"vibx {line.split()[0]}: error: {said}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train beta=1 beta=2", "note: beta is given twice: beta=2 counts, not beta=1\n"),
        ("train batch_size=60000", "note: batch_size=60000: every epoch is 1 step\n"),
        (
            "train objective=dropout mc_samples=5",
            "note: mc_samples has no effect: objective=dropout ",
        ),
        ("train objective=dropout beta=5", "note: beta has no effect: objective=dropout "),
        ("train root=ünï", ""),
        ("train root=~/x", ""),
        ("train root=a(b", ""),
        ("train -m beta=0,-0.0 objective=vib,dropout", ""),
    ],
)
def test_what_is_carried_out_otherwise_than_it_seems_is_said(
    up_to_the_work, tmp_path, monkeypatch, line, said
):
    monkeypatch.chdir(tmp_path)
    code, out, err = carried_out(line.split())
    assert (code, out) == (None, "")
    assert err.startswith(said)
    assert err.count("\n") == bool(said)


def test_text_that_hydra_cannot_read_arrives_as_it_was_typed(monkeypatch, up_to_the_work):
    roots = []
    monkeypatch.setattr(train, "launch", lambda jobs, **_: roots.append(jobs[0][1].root) or 1 / 0)
    given_ = ["ünï", "a b", "a(b", "it's", 'a"b', "~/x", "é{"]
    for root in given_:
        with pytest.raises(ZeroDivisionError):
            cli.main(["train", f"root={root}"])
    assert roots == [str(Path(root).expanduser()) for root in given_]


def test_minus_zero_is_the_same_run_as_zero(monkeypatch, up_to_the_work):
    names = []
    monkeypatch.setattr(train, "launch", lambda jobs, **_: names.append(jobs[0][0].run_id) or 1 / 0)
    for beta in ("0", "-0.0", "0.0"):
        with pytest.raises(ZeroDivisionError):
            cli.main(["train", f"beta={beta}"])
    assert len(set(names)) == 1
