"""Which records of a store a `runs=` condition stands for."""

import pytest

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
