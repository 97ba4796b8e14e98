"""Runs and attacks that several tests of tables and figures are drawn from."""

import dataclasses

import pytest

from tests.report import attack_records
from tests.report.table_runs import NUMBERS
from vibx import experiments
from vibx.report import style


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


@pytest.fixture
def not_laid_out(monkeypatch):
    """Figures whose panels are not put in their places, which takes longer than to draw them."""
    monkeypatch.setattr(style, "lay_out", lambda figure: None)


@pytest.fixture
def sketched(monkeypatch):
    """Files of figures with few pixels and an empty PDF: Figure 1's are whole."""

    def sketch(figure, *, format, **_):
        return whole(figure, format=format, dpi=40) if format == "png" else b""

    whole = style.rendered
    monkeypatch.setattr(style, "rendered", sketch)


@pytest.fixture(scope="package")
def grids():
    """Models, and the attacks of both figures on them."""
    return attack_records.grids()


@pytest.fixture(scope="package")
def attacked(grids, tmp_path_factory):
    """The attacks of Figure 3, and those of Figure 4."""
    return attack_records.attack_all(tmp_path_factory.mktemp("runs"), grids)


@pytest.fixture(scope="package")
def of_seeds(grids, tmp_path_factory):
    """The same with two seeds of the models and three of the attacks, on two images."""
    root = tmp_path_factory.mktemp("runs")
    return attack_records.attack_all(
        root, grids, seeds=(0, 1), attack_seeds=(0, 1, 2), images=(3, 10)
    )
