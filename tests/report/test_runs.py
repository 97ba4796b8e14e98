"""What tables call a model."""

import dataclasses

import pytest

from vibx.report import runs


@pytest.mark.parametrize(("beta", "text"), [(0.0, "0"), (3e-4, "3e-4"), (1.0, "1e0")])
def test_a_model_is_named_with_its_beta(configs, beta, text):
    cfg = dataclasses.replace(configs[-1], beta=beta)
    assert runs.model_name(cfg.to_dict()) == f"VIB, beta = {text}"


@pytest.mark.parametrize(
    ("objective", "beta", "name"),
    [
        (
            {"name": "squared_rate", "train_samples": 1},
            1e-3,
            "squared rate, train samples 1, beta = 1e-3",
        ),
        ({"name": "mixup", "alpha": 0.2}, None, "mixup, alpha 0.2"),
        ({"name": "nothing_else"}, None, "nothing else"),
    ],
)
def test_a_model_that_the_paper_does_not_have_goes_by_its_own_names(objective, beta, name):
    assert runs.model_name({"objective": objective, "beta": beta}) == name
    assert runs.short_name(name) == name.split(",")[0]
