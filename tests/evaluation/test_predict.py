"""Predictions and bounds of models that are designed so that the truth can be computed."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests import tiny
from vibx.data import Images
from vibx.data.device import scale
from vibx.evaluation.measure import measures
from vibx.evaluation.predict import BATCH, predict, predictive_samples, summarise
from vibx.training.state import model_definition

KEY = jax.random.key(3)
Z = np.linspace(-15, 15, 30_001)  # where densities are integrated


def evaluate(cfg, weights, images, *, key=KEY, mc_samples=4):
    """The measures' values of each image, by attribute."""
    found = predict(model_definition(cfg), weights, images, key, mc_samples=mc_samples)
    return SimpleNamespace(**jax.device_get(found))


def designed(*, means, scales, kernel, bias):
    """Image i, which has pixel i alone lit, is encoded as N(means[i], scales[i]^2), K = 1."""
    n = len(means)
    hidden = {"kernel": np.eye(784, n) / 2, "bias": np.full(n, 0.5)}  # 1 if lit, else 0
    rho = np.log(np.expm1(scales))
    encoder_head = {"kernel": np.stack([means, rho], axis=1), "bias": np.zeros(2)}
    decoder_head = {"kernel": np.asarray(kernel)[None], "bias": np.asarray(bias)}
    weights = {
        "encoder": {"hidden": {"layers": {0: hidden}}, "head": encoder_head},
        "decoder": {"head": decoder_head},
    }
    cfg = tiny.vib(K=1, encoder=tiny.mlp(n), scale_shift=0.0)
    return cfg, jax.tree.map(np.float32, weights)


def lit(rows):
    return 255 * np.eye(784, dtype=np.uint8)[np.asarray(rows)]


def integrate(values):
    return np.trapezoid(values, Z, axis=0)


# Three ways to predict


def undecided():
    """One image, z ~ N(0, 1): the samples mostly say 0 or 1, their mean logits say 2.

    Logits: class 0 10z + 1, class 1 -10z - 3, class 2 2, the others -50. So the largest one is
    of class 0 where z > 0.1, of class 1 where z < -0.5, and of class 2 between.
    """
    kernel, bias = np.zeros(10), np.full(10, -50.0)
    kernel[:2] = 10, -10
    bias[:3] = 1, -3, 2
    return designed(means=[0.0], scales=[1.0], kernel=kernel, bias=bias)


def log_q_of_undecided():
    head = jax.tree.map(np.float64, undecided()[1]["decoder"]["head"])
    return scipy.special.log_softmax(tiny.affine(head, Z[:, None]), axis=-1)


LABELS = np.arange(3000, dtype=np.int32) % 3


@functools.cache
def said_undecidedly():
    """The values of 3000 such images: as many draws, each with 1000 samples."""
    images = Images(lit(np.zeros(len(LABELS), int)), LABELS)
    return evaluate(*undecided(), images, mc_samples=1000)


def test_monte_carlo_averages_probabilities_and_not_logits():
    found = said_undecidedly()
    mean_log_q = integrate(scipy.stats.norm.pdf(Z)[:, None] * log_q_of_undecided())
    assert mean_log_q.argmax() == 2
    assert (found.error_mc == 0).all()


def test_mean_mode_decodes_the_mean():
    assert (said_undecidedly().error_mean == 2).all()


def test_one_shot_is_one_sample():
    """Its classes are as frequent as the samples for which they are the largest."""
    found = said_undecidedly()
    below, above = scipy.stats.norm.cdf([-0.5, 0.1])
    tiny.assert_mean(found.error_1[:, None] == [0, 1, 2], [1 - above, below, above - below])


def test_one_shot_is_monte_carlo_with_one_sample():
    cfg = tiny.vib(bottleneck="full_covariance")
    weights, images = tiny.parameters(cfg), tiny.images(100)
    found = evaluate(cfg, weights, images, mc_samples=1)
    np.testing.assert_array_equal(found.error_1, found.error_mc)
    np.testing.assert_allclose(found.distortion_bits, -found.nll_mc_bits, rtol=1e-5)
    assert (found.error_1 != found.error_mean).any()
    with_more = evaluate(cfg, weights, images, mc_samples=12)
    np.testing.assert_array_equal(found.error_1, with_more.error_1)
    assert (with_more.error_1 != with_more.error_mc).any()


def test_monte_carlo_terms_are_unbiased():
    """(1/S) sum q(y|z_s) estimates p(y|x), and the distortion E[-log q(y|z)]."""
    found = said_undecidedly()
    density = scipy.stats.norm.pdf(Z)[:, None]
    log_q = log_q_of_undecided()
    probability = integrate(density * np.exp(log_q))
    distortion = integrate(density * -log_q)
    for label in range(3):
        of_label = label == LABELS
        tiny.assert_mean(np.exp(found.nll_mc_bits[of_label]), probability[label])
        tiny.assert_mean(found.distortion_bits[of_label], distortion[label])


# Independence of images


def test_predictions_of_an_image_do_not_depend_on_the_other_images():
    cfg = tiny.vib()
    weights = tiny.parameters(cfg)
    images, others = tiny.images(BATCH + 3), tiny.images(BATCH + 3, seed=1)
    kept = np.arange(BATCH + 3) % 3 == 0
    mixed = Images(
        np.where(kept[:, None], images.pixels, others.pixels),
        np.where(kept, images.labels, others.labels),
    )
    before, after = (evaluate(cfg, weights, some) for some in (images, mixed))
    for name, old in vars(before).items():
        new = getattr(after, name)
        np.testing.assert_array_equal(old[kept], new[kept])
        assert (old[~kept] != new[~kept]).any()


def test_predictions_of_an_image_do_not_depend_on_its_batch():
    """In a full batch, in the rest, or alone: its noise comes from the key and its row."""
    cfg = tiny.vib()
    weights = tiny.parameters(cfg)
    images = tiny.images(BATCH + 3)
    model = tiny.model(cfg, weights)
    found = evaluate(cfg, weights, images)

    @jax.jit
    def alone(pixels, label, row):
        key = jax.random.fold_in(KEY, row)
        samples = predictive_samples(model, scale(pixels), label, key, mc_samples=4)
        return {m.name: m.per_image(samples) for m in measures()}

    for row in (0, BATCH - 1, BATCH, BATCH + 2):
        for name, value in alone(images.pixels[row], images.labels[row], row).items():
            values = getattr(found, name)
            np.testing.assert_allclose(values[row], value, rtol=1e-5, err_msg=name)


# Deterministic models


def test_a_deterministic_model_has_one_error_and_no_rate():
    cfg = tiny.deterministic()
    weights = tiny.parameters(cfg)
    images = tiny.images(100)
    found = evaluate(cfg, weights, images)
    x = np.asarray(scale(images.pixels))
    log_q = tiny.log_q(weights, tiny.encoder_outputs(weights, x))
    for classes in (found.error_1, found.error_mc, found.error_mean):
        np.testing.assert_array_equal(classes, log_q.argmax(axis=-1))
    for nats in (found.distortion_bits, -found.nll_mc_bits):
        np.testing.assert_allclose(nats, -log_q[np.arange(100), images.labels], rtol=1e-5)
    assert found.rate_bits is None

    section = summarise(vars(found), images.labels, mc_samples=12)
    assert section["rate_bits"] is None
    assert section["izx_upper_bits"] is None
    assert section["mc_samples"] == 1
    assert section["error_1"] == section["error_mc"] == section["error_mean"]
    assert section["nll_mc_bits"] == pytest.approx(section["distortion_bits"], rel=1e-6)


# The bounds


def test_the_bounds_enclose_the_mutual_informations():
    """Ten images, one of each class, encoded with equal scales, decoded by Bayes' rule.

    Then I(Z, Y) = I(Z, X) = H(Z) - H(Z|X), the lower bound is exact up to the samples' noise,
    and the upper one is too large by KL[p(z), r(z)]. With another decoder the lower one is lower.
    """
    means, sd = np.linspace(-3, 3, 10), 0.4
    cfg, weights = designed(
        means=means, scales=np.full(10, sd), kernel=means / sd**2, bias=-(means**2) / (2 * sd**2)
    )
    p = scipy.stats.norm.pdf(Z[:, None], means, sd).mean(axis=1)
    exact = integrate(scipy.special.entr(p)) - scipy.stats.norm(scale=sd).entropy()
    excess = integrate(scipy.special.rel_entr(p, scipy.stats.norm.pdf(Z)))

    classes = np.arange(2000, dtype=np.int32) % 10
    images = Images(lit(classes), classes)
    found = evaluate(cfg, weights, images, mc_samples=1)
    section = summarise(vars(found), classes, mc_samples=1)
    tiny.assert_mean(np.log(10) - found.distortion_bits, exact)
    assert section["izx_upper_bits"] == pytest.approx((exact + excess) / np.log(2), rel=1e-5)

    weights["decoder"] = jax.tree.map(lambda w: w / 2, weights["decoder"])
    found = evaluate(cfg, weights, images, mc_samples=1)
    section = summarise(vars(found), classes, mc_samples=1)
    assert section["izy_lower_bits"] < exact / np.log(2) - 0.02
