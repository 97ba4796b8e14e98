"""The paper's experiments: `conf/*/experiment/` expanded into runs or attacks, and their records.

Imports no jax: tables and figures get their records here.
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vibx import config, store
from vibx.config import Config
from vibx.config.overrides import values_of
from vibx.errors import ConfigError, DamagedError, UserError
from vibx.files import REMEDY
from vibx.robustness.config import AttackConfig, parse_attack, parse_attack_config
from vibx.store import RunError, StoredAttack, StoredRun

SCALES = ("paper", "fast", "smoke")  # the largest first


def command_of(experiment: str) -> str:
    """The command that an experiment is for, by where its configuration lies.

    Raises:
      ConfigError: it lies nowhere.
    """
    for command in ("train", "attack"):
        if (config.directory(command) / "experiment" / f"{experiment}.yaml").exists():
            return command
    raise ConfigError(f"experiment={experiment}: no conf/*/experiment/{experiment}.yaml")


@functools.cache
def expand(experiment: str, *, scale: str) -> tuple[Config, ...]:
    """The runs of an experiment: every combination of its grid, in the grid's order."""
    return tuple(run for run, _ in parsed("train", experiment, scale=scale, parse=config.parse))


@functools.cache
def expand_attacks(experiment: str, *, scale: str) -> tuple[tuple[str, AttackConfig], ...]:
    """The attacks of an experiment in the grid's order: which runs, and with what."""
    attacks = parsed("attack", experiment, scale=scale, parse=parse_attack)
    return tuple((execution.runs, attack) for attack, execution in attacks)


def configurations(experiment: str, scale: str) -> tuple[Any, ...]:
    """What `expand`, or `expand_attacks`, gives for an experiment of either command."""
    trains = command_of(experiment) == "train"
    return (expand if trains else expand_attacks)(experiment, scale=scale)


def parsed(
    command: str, experiment: str, *, scale: str, parse: Callable[[DictConfig], Any]
) -> list[Any]:
    """A command's configurations, parsed, one for every combination of its experiment's grid."""
    chosen = [f"experiment={experiment}", f"scale={scale}"]
    application = GlobalHydra.instance()
    running, application.hydra = application.hydra, None
    try:
        with initialize_config_dir(str(config.directory(command)), version_base="1.3"):
            whole = compose(command, chosen, return_hydra_config=True)
            plain = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
            override = functools.cache(OverridesParser.create().parse_override)
            grid = whole.hydra.sweeper.params.items()
            axes = [values_of(override(f"{key}={swept}")) for key, swept in grid]

            @functools.cache
            def with_groups(*groups: str) -> DictConfig:
                return compose(command, [*chosen, *groups]) if groups else plain

            found = []
            for combination in itertools.product(*axes):
                groups = [text for text in combination if is_group(command, text)]
                cfg = with_groups(*groups)
                # Each combination sets every key of the grid, so none sees what another one set.
                for one in map(override, set(combination) - set(groups)):
                    OmegaConf.update(cfg, one.key_or_group, one.value())
                found.append(parse(cfg))
            return found
    finally:
        application.hydra = running  # a command that is running gets its own back


def is_group(command: str, override: str) -> bool:
    """Whether an override chooses a file of the command's configuration."""
    return (config.directory(command) / override.partition("=")[0]).is_dir()


def read_attack(run: StoredRun, attack: AttackConfig) -> StoredAttack:
    """Read and check what an attack on a run found.

    Raises:
      DamagedError: it is not as it was written, or of another attack.
    """
    found = store.read_attack(run, attack.name)
    own = parse_attack_config(found.record["attack"]).name
    require_own_name(found.directory.name, own, found.directory)
    return found


def require_own_name(name: str, own: str, directory: Path) -> None:
    """Raise DamagedError where a record's name is not that of its configuration."""
    if name != own:
        raise DamagedError(f"{directory / store.METRICS}: has the configuration of {own}; {REMEDY}")


class Collected(NamedTuple):
    """What there is of an experiment, in the grid's order, and which configurations lack it.

    Both are empty where a store has no runs, or no attacks, at all.
    """

    found: list[Any]
    missing: list[Any]

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return bool(self.found) and not self.missing


class Archive:
    """The finished runs under a directory: a store, or a directory with a store per scale.

    `problems` says in a line each which records cannot be used; they count as missing.
    """

    def __init__(self, root: Path):
        """Read all records.

        Raises:
          RunError: there is no such directory.
        """
        per_scale = any((root / scale).is_dir() for scale in SCALES)
        self.stores = {scale: root / scale if per_scale else root for scale in SCALES}
        self.scales = [scale for scale, directory in self.stores.items() if directory.is_dir()]
        if not self.scales:
            raise RunError(f"{root}: no such directory; `vibx train` makes one")
        self.problems: list[str] = []
        self.runs = {path: self._read(path) for path in dict.fromkeys(self.stores.values())}
        self._collected: dict[tuple[Any, ...], Collected] = {}
        self._expanding: dict[tuple[str, str], Future[tuple[Any, ...]]] = {}

    def expand(self, experiments: Iterable[str], scales: Iterable[str], pool: Executor) -> None:
        """Begin to expand what will be collected: that takes longer than reading it."""
        for experiment, scale in itertools.product(experiments, scales):
            if self.has_any(command_of(experiment), scale):
                expanding = pool.submit(configurations, experiment, scale)
                self._expanding[experiment, scale] = expanding

    def has_any(self, command: str, scale: str) -> bool:
        """Whether there is any finished run, or any attack, at a scale."""
        runs = self.runs[self.stores[scale]].values()
        return any(command == "train" or store.has_attacks(run) for run in runs)

    def collect(self, experiment: str, *, scale: str, attacked: tuple[str, ...]) -> Collected:
        """Look an experiment's runs, or attacks, up by their whole configuration.

        Attacks are looked up on the runs of the experiments `attacked`.
        """
        command = command_of(experiment)
        trains = command == "train"
        key = experiment, scale, () if trains else attacked
        if key not in self._collected:
            if not self.has_any(command, scale):
                self._collected[key] = Collected([], [])
            elif trains:
                self._collected[key] = self._collect_runs(experiment, scale)
            else:
                runs = [self.collect(name, scale=scale, attacked=()).found for name in attacked]
                distinct = {run.directory: run for run in itertools.chain(*runs)}
                attacks = self._collect_attacks(experiment, scale, list(distinct.values()))
                self._collected[key] = attacks
        return self._collected[key]

    def _read(self, directory: Path) -> dict[Config, StoredRun]:
        if not directory.is_dir():
            return {}
        stored, problems = store.read_runs(directory)
        self.problems += problems
        found: dict[Config, StoredRun] = {}
        for path, record in stored:
            try:
                cfg = config.parse_config(record["config"])
                require_own_name(record["run_id"], cfg.run_id, path)
                # With keys that came later, so that older records compare with newer ones.
                found[cfg] = StoredRun(path, record | {"config": cfg.to_dict()})
            except UserError as error:
                where = "" if path.name in str(error) else f"{path}: "
                self.problems.append(f"{where}{error}")
        return found

    def _configurations(self, experiment: str, scale: str) -> tuple[Any, ...]:
        expanding = self._expanding.get((experiment, scale))
        return expanding.result() if expanding else configurations(experiment, scale)

    def _collect_runs(self, experiment: str, scale: str) -> Collected:
        wanted, found = self._configurations(experiment, scale), self.runs[self.stores[scale]]
        return Collected(
            [found[cfg] for cfg in wanted if cfg in found],
            [cfg for cfg in wanted if cfg not in found],
        )

    def _collect_attacks(self, experiment: str, scale: str, runs: list[StoredRun]) -> Collected:
        collected = Collected([], [])
        for conditions, attack in self._configurations(experiment, scale):
            attacked = store.among(runs, conditions)
            finished = list(filter(None, (self._read_attack(run, attack) for run in attacked)))
            collected.found.extend(finished)
            collected.missing.extend([attack] * (max(len(attacked), 1) - len(finished)))
        return collected

    def _read_attack(self, run: StoredRun, attack: AttackConfig) -> StoredAttack | None:
        try:
            if not store.is_attacked(run, attack.name):
                return None
            found = read_attack(run, attack)
            return found._replace(record=found.record | {"attack": attack.to_dict()})
        except UserError as error:
            if str(error) not in self.problems:  # looked up on other experiments' runs before
                self.problems.append(str(error))
            return None
