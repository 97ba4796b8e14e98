"""What a run leaves: the embedding of Figure 2, its evaluation, its history."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tests import tiny
from vibx.data.device import scale
from vibx.evaluation.predict import predict
from vibx.training.loop import Epoch
from vibx.training.run import EMBEDDED_IMAGES, embedding, history_row, measure
from vibx.training.state import model_definition
from vibx.training.step import Measurements
from vibx.training.streams import Stream, stream

IMAGES = tiny.images(EMBEDDED_IMAGES + 5)


@pytest.mark.parametrize("name", ["diagonal", "full_covariance", "deterministic"])
def test_an_embedding_has_the_encodings_of_the_first_images_and_the_decoder(name):
    cfg = tiny.deterministic(K=2) if name == "deterministic" else tiny.vib(K=2, bottleneck=name)
    weights = tiny.parameters(cfg)
    found = jax.device_get(jax.jit(functools.partial(embedding, cfg))(weights, IMAGES))
    x = np.asarray(scale(IMAGES.pixels[:EMBEDDED_IMAGES]))
    outputs = tiny.encoder_outputs(weights, x)
    factor = np.zeros((EMBEDDED_IMAGES, 2, 2))
    if name != "deterministic":
        factor[:, [0, 1], [0, 1]] = np.log1p(np.exp(outputs[:, 2:4]))
    if name == "full_covariance":
        factor[:, 1, 0] = outputs[:, 4]
    np.testing.assert_array_equal(found["labels"], IMAGES.labels[:EMBEDDED_IMAGES])
    np.testing.assert_allclose(found["means"], outputs[:, :2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["cholesky"], factor, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["decoder_kernel"], weights["decoder"]["head"]["kernel"])
    np.testing.assert_array_equal(found["decoder_bias"], weights["decoder"]["head"]["bias"])


def test_streams_keep_their_numbers():
    numbers = {purpose.name: purpose.value for purpose in Stream}
    assert numbers == {"INIT": 0, "DATA": 1, "NOISE": 2, "EVALUATION": 3, "ATTACK": 4}


def test_an_evaluation_has_the_noise_of_its_seed():
    cfg, images = tiny.vib(), tiny.images(100)
    weights = tiny.parameters(cfg)

    def of(seed):
        values, _ = measure(dataclasses.replace(cfg, seed=seed), weights, images)
        return values["distortion_bits"]

    key = stream(jax.random.key(0), Stream.EVALUATION)
    expected = predict(model_definition(cfg), weights, images, key, mc_samples=cfg.mc_samples)
    np.testing.assert_array_equal(of(0), expected["distortion_bits"])
    assert (of(1) != of(0)).any()


def test_a_history_row_counts_steps_and_is_in_bits():
    nats = Measurements(np.log(2), 2 * np.log(2), None)
    epoch = Epoch(0, 3, nats, 1e-4, 0.5, states=None, axis=1)
    assert history_row(tiny.vib(), epoch) == {
        "epoch": 3,
        "step": 12,
        "seconds": 0.5,
        "learning_rate": 1e-4,
        "objective_bits": pytest.approx(1),
        "distortion_bits": pytest.approx(2),
        "rate_bits": None,
    }
