"""One run from its configuration to its record: resume, train, evaluate, write."""

import contextlib
import dataclasses
import datetime
import functools
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vibx import config, runs
from vibx.config import Config
from vibx.data import Dataset, Images, load, scale
from vibx.encodings import DiagonalGaussian, FullCovarianceGaussian, Point
from vibx.errors import Interrupted
from vibx.evaluation import Predictions, predict_all, summarise
from vibx.information import bits
from vibx.streams import Stream, stream
from vibx.training.checkpoint import Checkpoints
from vibx.training.loop import Epoch, train
from vibx.training.state import (
    TrainState,
    evaluated_parameters,
    model_definition,
    model_with,
    split,
)

logger = logging.getLogger(__name__)

EMBEDDED_IMAGES = 1000  # Figure 2

Row = dict[str, Any]


def run(
    cfg: Config,
    directory: Path,
    *,
    eval_every: int,
    checkpoint_every: int,
    on_epoch: Callable[[Row], None],
) -> runs.Record:
    """Train a run to its last epoch and write what it leaves in `directory`, metrics.json last.

    Continues from the latest checkpoint. `on_epoch` sees every new row of history.csv.

    Raises:
      DataError: the data set cannot be had.
      DivergedError: the objective is not finite; the latest checkpoint stays.
      Interrupted: SIGINT or SIGTERM came; the epoch was finished and saved.
    """
    start = utc_now()
    data = dataset(cfg.data)
    runs.write_config(directory, cfg.to_dict())
    with Checkpoints(directory / runs.CHECKPOINTS) as checkpoints, stop_requests() as requested:
        first = (checkpoints.epoch or 0) + 1
        logger.info("epochs %d to %d of %s", first, cfg.epochs, cfg.run_id)
        history = runs.read_history(directory, until_epoch=first - 1)
        for epoch in train(cfg, data.train, checkpoints):
            row = history_row(cfg, epoch)
            last = epoch.number == cfg.epochs
            if last or epoch.number % eval_every == 0:
                row |= held_out_columns(cfg, epoch.state, data)
            history.append(row)
            on_epoch(row)
            stop = requested()
            if last or stop or epoch.number % checkpoint_every == 0:
                runs.write_history(directory, history)
                checkpoints.save(epoch.number, epoch.state)
            if stop and not last:
                raise Interrupted(f"saved after epoch {epoch.number} of {cfg.epochs}")
        state = checkpoints.restore(split(cfg)[0])
    sections = results(cfg, state, data, directory)
    record = make_record(cfg, sections, history, start=start)
    runs.write_json(directory / runs.METRICS, record)
    logger.info("finished")
    return record


def evaluate(
    stored_config: dict[str, Any], directory: Path, *, mc_samples: int
) -> dict[str, dict[str, Any]]:
    """The record's sections for a finished run, with another number of samples."""
    cfg = dataclasses.replace(config.parse_config(stored_config), mc_samples=mc_samples)
    data = dataset(cfg.data)
    with Checkpoints(directory / runs.CHECKPOINTS) as checkpoints:
        state = checkpoints.restore(split(cfg)[0])
    return {
        name: measure(cfg, state, images)[1]
        for name, images in (("train", data.train), (data.held_out_name, data.held_out))
    }


@functools.lru_cache(maxsize=1)
def dataset(data: config.Data) -> Dataset:
    """The data set on the device; the runs of a sweep share it."""
    loaded = load(
        data.name,
        validation=data.validation,
        train_images=data.train_images,
        held_out_images=data.held_out_images,
    )
    train_images, held_out = jax.device_put((loaded.train, loaded.held_out))
    return Dataset(train_images, held_out, loaded.held_out_name)


def history_row(cfg: Config, epoch: Epoch) -> Row:
    """The columns of history.csv that every epoch has."""
    program, _ = split(cfg)
    return {
        "epoch": epoch.number,
        "step": epoch.number * program.steps_per_epoch,
        "seconds": epoch.seconds,
        "learning_rate": epoch.learning_rate,
        "objective_bits": bits(epoch.objective),
        "distortion_bits": bits(epoch.distortion),
        "rate_bits": None if cfg.beta is None else bits(epoch.rate),
    }


def held_out_columns(cfg: Config, state: TrainState, data: Dataset) -> Row:
    """The columns of history.csv on the held-out images."""
    _, measured = measure(cfg, state, data.held_out)
    columns = ("error_1", "error_mc", "distortion_bits", "rate_bits")
    return {f"{data.held_out_name}_{name}": measured[name] for name in columns}


def measure(cfg: Config, state: TrainState, images: Images) -> tuple[Predictions, dict[str, Any]]:
    """Predictions with the weights that stand for the run, and the record's section on them."""
    program, _ = split(cfg)
    predictions = predict_all(
        model_definition(program),
        evaluated_parameters(state),
        images,
        stream(jax.random.key(cfg.seed), Stream.EVALUATION),
        mc_samples=cfg.mc_samples,
    )
    predictions = jax.device_get(predictions)
    return predictions, summarise(predictions, images.labels, mc_samples=cfg.mc_samples)


def results(
    cfg: Config, state: TrainState, data: Dataset, directory: Path
) -> dict[str, dict[str, Any]]:
    """Evaluate a trained run, write its arrays, and return the record's sections."""
    sections = {}
    for name, images in (("train", data.train), (data.held_out_name, data.held_out)):
        predictions, sections[name] = measure(cfg, state, images)
    runs.write_arrays(
        directory / runs.PREDICTIONS,
        labels=data.held_out.labels,
        class_1=predictions.class_1,
        class_mc=predictions.class_mc,
        log_probability_mc=predictions.log_probability_mc,
    )
    if cfg.K == 2 and isinstance(cfg.decoder, config.Linear):
        runs.write_arrays(directory / runs.EMBEDDING, **embedding(cfg, state, data.held_out))
    return sections


def embedding(cfg: Config, state: TrainState, images: Images) -> dict[str, Any]:
    """What Figure 2 draws: encodings of the first images, and the decoder's weights."""
    program, _ = split(cfg)
    model = model_with(program, evaluated_parameters(state))
    encoding = model.encoder(scale(images.pixels[:EMBEDDED_IMAGES]))
    match encoding:
        case FullCovarianceGaussian(cholesky=factor):
            cholesky = factor
        case DiagonalGaussian(scale=scales):
            cholesky = scales[..., None] * jnp.eye(cfg.K)
        case Point(mean):
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
) -> runs.Record:
    """The content of metrics.json."""
    program, _ = split(cfg)
    seconds = sum(row["seconds"] for row in history)
    steps = cfg.epochs * program.steps_per_epoch
    device = jax.devices()[0]
    return {
        "schema": runs.SCHEMA,
        "run_id": cfg.run_id,
        "config": cfg.to_dict(),
        **sections,
        "epochs": cfg.epochs,
        "steps": steps,
        "seconds": seconds,
        "images_per_second": steps * cfg.batch_size / seconds,
        "provenance": runs.provenance(
            device=f"{device.platform}: {device.device_kind}", start=start, end=utc_now()
        ),
    }


def utc_now() -> str:
    """The time as stored in records."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a request to stop; the second one acts at once."""
    received: list[int] = []
    previous = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])
        logger.warning("stopping at the end of this epoch (again: at once, losing the epoch)")

    for number in previous:
        signal.signal(number, request)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
