"""Choices: what a schema registers, and what its fields say about a run's identity."""

import dataclasses
from dataclasses import dataclass

import pytest

from vibx import choices
from vibx.choices import apart, choice, compiled, identity, names_of, refuse_unknown, traced
from vibx.errors import ConfigError


@pytest.fixture
def groups(monkeypatch):
    """A registry without choices."""
    monkeypatch.setattr(choices, "GROUPS", {})
    return choices.GROUPS


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int
    slope: float = traced()
    offset: float = traced(default=0.0, later=True)


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = apart()
    inner: Inner = traced()
    window: int = compiled(default=3, later=True)
    stride: int = 2
    lengths: tuple[int, ...] = compiled(default_factory=lambda: (1, 2), later=True)
    path: str = apart(default="", compare=False)


def test_a_name_has_its_own_schema_or_the_one_for_any_name(groups):
    choice("shape", "inner")(Inner)
    with pytest.raises(ConfigError, match="shape=outer: must be one of inner"):
        choices.schema_of("shape", "outer")
    choice("shape")(Outer)
    assert choices.schema_of("shape", "inner") is Inner
    assert choices.schema_of("shape", "outer") is Outer


def test_fields_have_one_role():
    roles = {role: names_of(Outer, role=role) for role in ("traced", "apart", None)}
    assert roles == {
        "traced": ["inner"],
        "apart": ["name", "path"],
        None: ["window", "stride", "lengths"],
    }


def test_identity_leaves_later_keys_out_at_their_defaults():
    outer = Outer(name="outer", inner=Inner(width=1, slope=0.5), path="here")
    before = {"name": "outer", "inner": {"width": 1, "slope": 0.5}, "stride": 2}
    assert identity(outer) == before
    changed = {"window": 5, "lengths": (1,), "stride": 3}
    for key, value in changed.items():
        assert identity(dataclasses.replace(outer, **{key: value})) == {**before, key: value}
    inner = dataclasses.replace(outer.inner, offset=0.1)
    found = identity(dataclasses.replace(outer, inner=inner))
    assert found["inner"] == {"width": 1, "slope": 0.5, "offset": 0.1}


def test_an_unknown_key_is_refused_with_the_one_that_was_meant():
    refuse_unknown(["beta"], ["beta", "K"])
    with pytest.raises(ConfigError, match=r"^no such key: run\.bete \(did you mean beta\?\)$"):
        refuse_unknown(["beta", "bete"], ["beta", "K"], prefix="run.")
    with pytest.raises(ConfigError, match=r"^no such key: zzz$"):
        refuse_unknown(["zzz"], ["beta", "K"])
