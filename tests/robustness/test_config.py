"""An attack's configuration: names that committed results keep, and sizes of the run's data set."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import tiny
from tests.attacks.models import settings
from vibx.attacks.settings import Noise
from vibx.choices import apart, identity
from vibx.errors import ConfigError
from vibx.robustness.config import AttackConfig, parse_attack_config

ROOT = Path(__file__).parents[2]
COMMITTED = sorted(ROOT.glob("outputs/paper/*/*/attacks/*/metrics.json"))


def attack_config(**changes):
    defaults = {
        "mode": "targeted",
        "target": None,
        "n": 50,
        "images": None,
        "samples": 12,
        "seed": 0,
        "rechecks": 4,
        "attack": settings("noise"),
    }
    return AttackConfig(**{**defaults, **changes})


def test_every_committed_attack_has_the_name_of_its_configuration():
    names = {}
    for path in COMMITTED:
        stored = json.loads(path.read_text())["attack"]
        cfg = parse_attack_config(stored)
        now = cfg.to_dict()
        assert stored == {**now, "attack": {key: now["attack"][key] for key in stored["attack"]}}
        assert identity(cfg) == identity(parse_attack_config(now))
        names[path.parent.name] = cfg.name
    assert names
    assert all(name == directory for directory, name in names.items())


def test_a_key_that_comes_later_leaves_names_as_they_are():
    @dataclass(frozen=True, kw_only=True)
    class Louder(Noise):
        volume: int = apart(later=True, default=1)

    quiet = attack_config()
    noise = dataclasses.asdict(quiet.attack)
    assert attack_config(attack=Louder(**noise)).name == quiet.name
    assert attack_config(attack=Louder(**noise, volume=2)).name != quiet.name


def test_images_that_are_listed_are_not_counted_too():
    assert attack_config(images=(3,), n=1).name == attack_config(images=(3,), n=9).name
    assert attack_config(n=1).name != attack_config(n=9).name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 10_001}, r"n=10001: must be at most 10000, the test images of mnist"),
        ({"images": (0, 10_000)}, r"images=\[0, 10000\]: must be indices below 10000"),
        ({"target": 10}, r"target=10: must be below 10, the classes of mnist"),
    ],
)
def test_more_than_the_data_set_has_is_refused(changes, message):
    attack_config(n=10_000, target=9).check_sizes(tiny.vib())
    with pytest.raises(ConfigError, match=message):
        attack_config(**changes).check_sizes(tiny.vib())
