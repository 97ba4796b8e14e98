"""Measures: what they say of one image, and of a set of images."""

import math

import numpy as np
import pytest
import scipy.stats

from vibx.evaluation.measure import PredictiveSamples, measures
from vibx.evaluation.predict import summarise

# Sections of metrics.json


def test_summarise_counts_errors_and_converts_to_bits():
    labels = np.array([0, 0, 1, 2], np.int32)
    nats = math.log(2) * np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    values = {
        "error_1": np.array([1, 1, 1, 1]),
        "error_mc": np.array([0, 0, 1, 1]),
        "error_mean": np.array([0, 1, 1, 1]),
        "nll_mc_bits": -3 * nats,
        "distortion_bits": nats,
        "izy_lower_bits": nats,
        "rate_bits": 10 * nats,
        "izx_upper_bits": 10 * nats,
    }
    section = summarise(values, labels, mc_samples=12)
    assert section == {
        "n": 4,
        "error_1": 0.75,
        "error_mc": 0.25,
        "mc_samples": 12,
        "error_mean": 0.5,
        "distortion_bits": pytest.approx(2.5),
        "rate_bits": pytest.approx(25),
        "izy_lower_bits": pytest.approx(scipy.stats.entropy([2, 1, 1], base=2) - 2.5),
        "izx_upper_bits": pytest.approx(25),
        "nll_mc_bits": pytest.approx(7.5),
    }


def test_means_are_taken_in_float64():
    """A float32 sum of 60,000 terms would be off in the fifth digit."""
    terms = np.random.default_rng(0).exponential(size=60_000).astype(np.float32)
    expected = math.fsum(terms.tolist()) / 60_000 / math.log(2)
    labels = np.zeros(60_000, np.int32)
    means = {m.name: m.of_images(terms, labels) for m in measures() if m.unit == "bits"}
    assert means == {
        "distortion_bits": pytest.approx(expected, rel=1e-12),
        "rate_bits": pytest.approx(expected, rel=1e-12),
        "izx_upper_bits": pytest.approx(expected, rel=1e-12),
        "izy_lower_bits": pytest.approx(-expected, rel=1e-12),  # labels without entropy
        "nll_mc_bits": pytest.approx(-expected, rel=1e-12),
    }


def test_measures_of_one_image_by_hand():
    """Two samples of z over three classes; the true one is the second."""
    q = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    samples = PredictiveSamples(
        log_q=np.log(q),
        log_p=np.log(q.mean(axis=0)),
        p=q.mean(axis=0),
        logits_at_mean=np.array([0.0, 1.0, 5.0]),
        cross_entropy=-np.log(q[:, 1]),
        rate=np.float64(3.0),
        label=np.int64(1),
    )
    distortion = -(np.log(0.2) + np.log(0.8)) / 2
    assert {m.name: m.per_image(samples) for m in measures()} == {
        "error_mc": 1,
        "error_1": 0,
        "error_mean": 2,
        "distortion_bits": pytest.approx(distortion),
        "rate_bits": 3.0,
        "izy_lower_bits": pytest.approx(distortion),
        "izx_upper_bits": 3.0,
        "nll_mc_bits": pytest.approx(np.log(0.5)),
    }


def test_numbers_are_shown_by_their_unit():
    by_name = {m.name: m for m in measures()}
    assert by_name["error_mc"].shown(0.0123) == "1.23%"
    assert by_name["rate_bits"].shown(12.34567) == "12.35"
    assert by_name["rate_bits"].shown(None) == "-"
