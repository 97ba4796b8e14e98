"""Runs and attacks that several tests of tables and figures are drawn from."""

import dataclasses

import pytest

from tests.report.table_runs import NUMBERS
from vibx import experiments


@pytest.fixture(scope="package")
def in_use():
    """The runs of Table 1 as conf has them."""
    return experiments.expand("table1", scale="smoke")


@pytest.fixture(scope="package")
def configs(in_use):
    """The runs of Table 1 with numbers that the choice of others in conf does not change."""
    return [
        dataclasses.replace(
            cfg,
            objective=dataclasses.replace(cfg.objective, **NUMBERS.get(cfg.objective.name, {})),
        )
        for cfg in in_use
    ]
