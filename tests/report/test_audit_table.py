"""The audit's table of a made-up record."""

import io

import pandas as pd

from tests.records import write_run
from tests.report.table_runs import chosen
from vibx.report.drawings import Source, audit
from vibx.store import StoredAttack


def test_the_audit_is_a_table_per_run_with_failed_checks_in_bold(tmp_path, in_use):
    run = write_run(tmp_path, chosen(in_use, models=["vib"], seeds=[0])[0])
    check = {"expected": "at most 1%", "measured": "0.4%", "meaning": "It holds.", "values": {}}
    checks = [
        {"name": "norm budget", "passed": True, **check},
        {"name": "black box", "passed": False, **check},
    ]
    record = {"run_id": run.record["run_id"], "attack": {"n": 50}, "checks": checks}
    files = audit.draw(Source("smoke", {"attack_audit": [StoredAttack(run, tmp_path, record)]}))
    assert list(files) == ["audit.csv", "audit.md"]
    assert list(pd.read_csv(io.BytesIO(files["audit.csv"]))["passed"]) == [True, False]
    text = files["audit.md"].decode()
    assert (
        "**VIB, beta = 1e-3**, scale smoke, the first 50 test images: 1 of 2 checks passed." in text
    )
    assert "| norm budget | at most 1% | 0.4% | yes | It holds. |" in text
    assert "| black box | at most 1% | 0.4% | **no** | It holds. |" in text
