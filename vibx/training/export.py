"""Finished runs as weights that others can load: safetensors, a record and a model card."""

from pathlib import Path

from vibx import config, store
from vibx.evaluation.measure import measures
from vibx.files import FILES, sha256, write_whole
from vibx.store import StoredRun
from vibx.training.run import device_name, evaluate, utc_now
from vibx.training.weights import exported, read_weights


def export_run(run: StoredRun, output: Path, *, dtype: str) -> Path:
    """Write a run's weights to a directory of its own below `output`; returns that.

    The directory is a finished run of a store, with weights in place of a checkpoint: `vibx
    evaluate` and `vibx attack` take it. What its record says is measured with these weights.

    Raises:
      RunError: the run's weights are not there.
    """
    start = utc_now()
    cfg = config.parse_config(run.record["config"])
    directory = output / run.record["run_id"]
    content = exported(read_weights(run), cfg, dtype=dtype)
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / store.WEIGHTS, content)
    weights = sha256(directory / store.WEIGHTS)
    written = StoredRun(directory, run.record | {FILES: {store.WEIGHTS: weights}})
    record = run.record | evaluate(written, mc_samples=cfg.mc_samples)
    record["exported"] = {
        "dtype": dtype,
        "from_record_sha256": sha256(run.directory / store.METRICS),
        "weights_sha256": weights,
        "provenance": store.provenance(device=device_name(), start=start, end=utc_now()),
    }
    write_whole(directory / store.CARD, card(record, run.record).encode())
    store.write_record(directory, record)
    return directory


def card(record: store.Record, trained: store.Record) -> str:
    """A model card: what the weights are, how they do, and where they come from."""
    name = store.held_out_name(record)
    rows = []
    for measured in measures():
        label = measured.label.format(**record[name]).replace("|", r"\|")
        values = [measured.shown(source[name][measured.name]) for source in (trained, record)]
        rows.append(f"| {label} | {' | '.join(values)} |")
    exported, provenance = record["exported"], record["provenance"]
    return "\n".join(
        [
            f"# {record['run_id']}",
            "",
            '"Deep Variational Information Bottleneck" (Alemi et al. 2017), trained with vibx '
            f"{provenance['vibx']}, commit {provenance['git_commit']}:",
            "",
            f"    {provenance['command']}",
            "",
            f"| on the {name} images | as trained | as exported, {exported['dtype']} |",
            "|---|---:|---:|",
            *rows,
            "",
            f"`{store.WEIGHTS}` has the weights that are evaluated (SHA-256 "
            f"{exported['weights_sha256']}), `{store.METRICS}` the configuration and all numbers. "
            "Images go in as x / 127.5 - 1, row by row. The run's record had the SHA-256 "
            f"{exported['from_record_sha256']}.",
            "",
        ]
    )
