"""Finished runs as weights that others can load: safetensors, a record and a model card."""

import hashlib
from pathlib import Path

from vibx import config, store
from vibx.evaluation.measure import measures
from vibx.files import FILES, damaged, sha256, write_whole
from vibx.store import RunError, StoredRun
from vibx.training.run import DivergedError, device_name, evaluate, require_finite, utc_now
from vibx.training.weights import exported, read_weights


def export_run(run: StoredRun, directory: Path, *, dtype: str) -> None:
    """Write a run's weights to a directory, in place of an earlier export.

    The directory is a finished run of a store, with weights in place of a checkpoint: `vibx
    evaluate` and `vibx attack` take it. What its record says is measured with these weights. An
    earlier export goes, with what was found on its weights, unless it is this very one.

    Raises:
      RunError: the run's weights are not there, or too large for `dtype`.
      LockedError: another process works with the earlier export.
    """
    start = utc_now()
    cfg = config.parse_config(run.record["config"])
    content = exported(read_weights(run), cfg, dtype=dtype)
    origin = {
        "dtype": dtype,
        "from_record_sha256": sha256(run.directory / store.METRICS),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    with store.working(directory, work="exported", force=not is_export(directory, origin)) as place:
        if store.is_finished(place):
            return
        write_whole(place / store.WEIGHTS, content)
        written = StoredRun(place, run.record | {FILES: {store.WEIGHTS: origin["weights_sha256"]}})
        sections = evaluate(written, mc_samples=cfg.mc_samples)
        try:
            require_finite(cfg, sections)
        except DivergedError as error:
            raise RunError(f"{error} with weights in {dtype}; dtype=float32 keeps them") from error
        provenance = store.provenance(device=device_name(), start=start, end=utc_now())
        record = run.record | sections | {"exported": origin | {"provenance": provenance}}
        write_whole(place / store.CARD, card(record, run.record).encode())
        store.write_record(place, record)


def is_export(directory: Path, origin: dict[str, str]) -> bool:
    """Whether a directory has the whole export of this origin."""
    try:
        record = store.read_record(directory)
    except RunError:
        return False
    whole = not any(damaged(directory, record[FILES]))
    return whole and origin.items() <= record.get("exported", {}).items()


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
