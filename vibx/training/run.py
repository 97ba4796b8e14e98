"""Runs from their configurations to their records: resume, train, evaluate, write."""

import contextlib
import dataclasses
import datetime
import functools
import logging
import math
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vibx import config, store
from vibx.config import Config, schemas
from vibx.data import Dataset, Images, load
from vibx.data.device import scale
from vibx.data.schemas import Data
from vibx.encodings import Deterministic, DiagonalGaussian, FullCovarianceGaussian
from vibx.errors import FailedRunError, Interrupted, UserError, going_through
from vibx.evaluation.measure import measures
from vibx.evaluation.predict import Values, predict, summarise
from vibx.files import write_arrays
from vibx.information import bits
from vibx.training.checkpoint import Checkpoints, Row, Saved
from vibx.training.loop import Epoch, train
from vibx.training.state import Parameters, evaluated_parameters, model_definition, model_with
from vibx.training.streams import Stream, stream
from vibx.training.weights import read_weights

logger = logging.getLogger(__name__)

EMBEDDED_IMAGES = 1000  # Figure 2
OF_PROCESS = "vibx", "git_commit", "device", "start"  # said of each that trained a run in turn

Outcomes = dict[Config, store.Record | Exception]


class DivergedError(FailedRunError):
    """A run's objective is no longer finite."""


class Run:
    """A run at work in its directory: its checkpoints, its history, and in the end its record."""

    def __init__(self, cfg: Config, directory: Path, *, runs_at_once: int):
        self.started = utc_now()
        self.runs_at_once = runs_at_once
        self.cfg = cfg
        self.directory = directory
        self.checkpoints = Checkpoints(directory, cfg)
        self.history: list[Row] = []
        self.processes: list[dict[str, Any]] = []  # this one is the last

    def start(self) -> Saved:
        """Where the run goes on: its latest checkpoint, or before the first epoch.

        Raises:
          DamagedError: its checkpoints are not whole.
        """
        saved = self.checkpoints.latest()
        self.history = list(saved.history)
        own = store.provenance(device=device_name(), start=self.started, end=utc_now())
        self.processes = [*saved.processes, {key: own[key] for key in OF_PROCESS}]
        store.write_config(self.directory, self.cfg.to_dict())
        return saved

    def record_epoch(self, epoch: Epoch, data: Dataset, *, evaluate: bool, save: bool) -> Row:
        """Add an epoch to the history, and a checkpoint to the directory if it is due."""
        if not math.isfinite(epoch.measured.objective):
            raise DivergedError(
                f"{self.cfg.run_id}: the objective is not finite in epoch {epoch.number}"
            )
        row = history_row(self.cfg, epoch)
        if evaluate:
            parameters = evaluated_parameters(epoch.state)
            row |= held_out_columns(self.cfg, parameters, data)
        self.history.append(row)
        if save:
            saved = Saved(epoch.number, epoch.state, self.history, self.processes)
            self.checkpoints.save(saved)
            store.write_history(self.directory, self.history)  # after it: promises a checkpoint
        return row

    def finish(self, data: Dataset) -> store.Record:
        """Evaluate the last checkpoint and write what the run leaves, metrics.json last."""
        saved = self.checkpoints.read(self.cfg.epochs)
        assert saved.state is not None
        sections = results(self.cfg, evaluated_parameters(saved.state), data, self.directory)
        require_finite(self.cfg, sections)
        store.write_config(self.directory, self.cfg.to_dict())
        store.write_history(self.directory, saved.history)
        record = make_record(self.cfg, sections, saved.history, start=self.started)
        record["provenance"]["runs_at_once"] = self.runs_at_once
        if len(self.processes) > 1:
            record["provenance"]["resumed_after"] = self.processes[:-1]
        self.checkpoints.keep_latest()  # first: what has a record is not looked at again
        record = store.write_record(self.directory, record)
        logger.info("finished %s", self.cfg.run_id)
        return record


def require_finite(cfg: Config, sections: dict[str, dict[str, Any]]) -> None:
    """Fail a run with a measure that is no number: its weights are too large to evaluate.

    Raises:
      DivergedError: there is one.
    """
    for images, section in sections.items():
        for name, value in section.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise DivergedError(f"{cfg.run_id}: {name} on the {images} images is {value}")


def train_runs(
    directories: dict[Config, Path],
    *,
    axis: int,
    eval_every: int,
    checkpoint_every: int,
    on_epoch: Callable[[str, Row], None],
    requested: Callable[[], int],
) -> Outcomes:
    """Train runs that share program and data together, each to its last epoch and its record.

    They continue from their latest checkpoints, on a run axis of that length. `on_epoch` sees the
    run_id and every new row of history.csv. `requested` gives the number of the signal to stop by,
    or 0. A run that fails (its objective is not finite, its directory cannot be written) leaves its
    error in place of a record, and the others go on.

    Raises:
      DataError: the data set cannot be had.
      Interrupted: a stop was requested; the epoch was finished and saved.
    """
    outcomes: Outcomes = {}
    group: list[Run] = []
    starts: list[Saved] = []
    data = dataset(next(iter(directories)).data)
    for cfg, directory in directories.items():
        with own_failure(cfg, outcomes):
            run = Run(cfg, directory, runs_at_once=axis)
            starts.append(run.start())
            group.append(run)
    cfgs = [run.cfg for run in group]
    for epochs in train(cfgs, data.train, starts, axis=axis) if group else ():
        stop = requested()
        for epoch in epochs:
            run = group[epoch.run]
            if run.cfg in outcomes:
                continue
            last = epoch.number == run.cfg.epochs
            evaluate = last or epoch.number % eval_every == 0
            save = last or bool(stop) or epoch.number % checkpoint_every == 0
            with own_failure(run.cfg, outcomes), going_through(epochs):
                row = run.record_epoch(epoch, data, evaluate=evaluate, save=save)
                on_epoch(run.cfg.run_id, row)
        going_on = [e for e in epochs if group[e.run].cfg not in outcomes]
        if not going_on:
            break
        if stop and any(e.number < group[e.run].cfg.epochs for e in going_on):
            number, total = going_on[-1].number, group[-1].cfg.epochs
            raise Interrupted(f"saved after epoch {number} of {total}", number=stop)
    for run in group:
        if run.cfg not in outcomes:
            with own_failure(run.cfg, outcomes), going_through(run.history):
                outcomes[run.cfg] = run.finish(data)
    return outcomes


@contextlib.contextmanager
def own_failure(cfg: Config, outcomes: Outcomes) -> Iterator[None]:
    """Keep what fails a run as its outcome, so that the others go on."""
    try:
        yield
    except (UserError, OSError) as error:
        logger.info("failed: %s", error)
        outcomes[cfg] = error


def evaluate(run: store.StoredRun, *, mc_samples: int) -> dict[str, dict[str, Any]]:
    """The record's sections for a finished run, with another number of samples.

    Raises:
      RunError: its weights are not there, or (DamagedError) not as they were written.
    """
    parameters = read_weights(run)
    cfg = config.parse_config(run.record["config"])
    cfg, data = dataclasses.replace(cfg, mc_samples=mc_samples), dataset(cfg.data)
    return {
        name: measure(cfg, parameters, images)[1]
        for name, images in (("train", data.train), (data.held_out_name, data.held_out))
    }


@functools.lru_cache(maxsize=1)
def dataset(data: Data) -> Dataset:
    """The data set on the device; the runs of a sweep share it."""
    loaded = load(data)
    train_images, held_out = jax.device_put((loaded.train, loaded.held_out))
    return Dataset(train_images, held_out, loaded.held_out_name)


def history_row(cfg: Config, epoch: Epoch) -> Row:
    """The columns of history.csv that every epoch has."""
    in_bits = {
        f"{name}_bits": None if value is None else bits(float(value))
        for name, value in epoch.measured._asdict().items()
    }
    return {
        "epoch": epoch.number,
        "step": epoch.number * cfg.steps_per_epoch,
        "seconds": epoch.seconds,
        "learning_rate": epoch.learning_rate,
        **in_bits,
    }


def held_out_columns(cfg: Config, parameters: Parameters, data: Dataset) -> Row:
    """The columns of history.csv on the held-out images."""
    _, measured = measure(cfg, parameters, data.held_out)
    return {f"{data.held_out_name}_{m.name}": measured[m.name] for m in measures() if m.history}


def measure(cfg: Config, parameters: Parameters, images: Images) -> tuple[Values, dict[str, Any]]:
    """Measures of each image, and the record's section on them."""
    values = predict(
        model_definition(cfg),
        parameters,
        images,
        stream(jax.random.key(cfg.seed), Stream.EVALUATION),
        mc_samples=cfg.mc_samples,
    )
    values = jax.device_get(values)
    return values, summarise(values, images.labels, mc_samples=cfg.mc_samples)


def results(
    cfg: Config, parameters: Parameters, data: Dataset, directory: Path
) -> dict[str, dict[str, Any]]:
    """Evaluate a trained run, write its arrays, and return the record's sections."""
    _, train_section = measure(cfg, parameters, data.train)
    values, section = measure(cfg, parameters, data.held_out)
    stored = {m.stored_as: values[m.name] for m in measures() if m.stored_as}
    write_arrays(directory / store.PREDICTIONS, labels=data.held_out.labels, **stored)
    if cfg.K == 2 and isinstance(cfg.decoder, schemas.Linear):
        write_arrays(directory / store.EMBEDDING, **embedding(cfg, parameters, data.held_out))
    return {"train": train_section, data.held_out_name: section}


def embedding(cfg: Config, parameters: Parameters, images: Images) -> dict[str, Any]:
    """What Figure 2 draws: encodings of the first images, and the decoder's weights."""
    model = model_with(cfg, parameters)
    encoding = model.encoder(scale(images.pixels[:EMBEDDED_IMAGES]))
    match encoding:
        case FullCovarianceGaussian(cholesky=factor):
            cholesky = factor
        case DiagonalGaussian(scale=scales):
            cholesky = scales[..., None] * jnp.eye(cfg.K)
        case Deterministic(mean):
            cholesky = jnp.zeros((*mean.shape, cfg.K))
    head = nnx.to_pure_dict(nnx.state(model.decoder.head))
    return {
        "labels": images.labels[:EMBEDDED_IMAGES],
        "means": encoding.mean,
        "cholesky": cholesky,
        "decoder_kernel": head["kernel"],
        "decoder_bias": head["bias"],
    }


def make_record(
    cfg: Config, sections: dict[str, Any], history: list[Row], *, start: str
) -> store.Record:
    """The content of metrics.json."""
    seconds = sum(row["seconds"] for row in history)
    steps = cfg.epochs * cfg.steps_per_epoch
    return {
        "schema": store.SCHEMA,
        "run_id": cfg.run_id,
        "config": cfg.to_dict(),
        **sections,
        "epochs": cfg.epochs,
        "steps": steps,
        "seconds": seconds,
        "images_per_second": steps * cfg.batch_size / seconds,
        "provenance": store.provenance(device=device_name(), start=start, end=utc_now()),
    }


def device_name() -> str:
    """The device as stored in records; of a CPU, whose name in jax is `cpu`, model and cores."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"cpu: {processor()}, {os.cpu_count()} cores"
    return f"{device.platform}: {device.device_kind}"


def processor() -> str:
    """The CPU's model where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def utc_now() -> str:
    """The time as stored in records."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
