"""What a run leaves: the embedding of Figure 2."""

import functools

import jax
import numpy as np
import pytest

from tests import tiny
from vibx.data.device import scale
from vibx.training.run import EMBEDDED_IMAGES, embedding

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
