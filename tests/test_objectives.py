"""Objectives against the paper's formulas written by hand, quadrature and finite differences.

In float64. What is compared with is `tiny`'s network and the formulas below, not vibx's.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from vibx.objectives import deterministic_logits, objective

pytestmark = pytest.mark.usefixtures("float64")

KEY = jax.random.key(7)
X = np.random.default_rng(0).uniform(-1, 1, (6, 784))
Y = np.array([3, 0, 9, 9, 1, 4])

quickly = settings(derandomize=True, max_examples=30)


def terms(cfg, weights, *, key=KEY, **numbers):
    """The configuration's objective in vibx; `beta` or numbers of the objective can be replaced.

    They may be tracers, which a schema's own validation would refuse.
    """
    beta = numbers.pop("beta", cfg.beta)
    schema = object.__new__(type(cfg.objective))
    vars(schema).update({**vars(cfg.objective), **numbers})
    return objective(schema, tiny.model(cfg, weights), X, Y, key=key, beta=beta)


def compiled_terms(cfg, weights):
    """The same as a function of the objective's numbers, compiled once for all of them."""
    return jax.jit(lambda **numbers: terms(cfg, weights, **numbers))


def float64_weights(cfg):
    return tiny.parameters(cfg, dtype=np.float64)


def numpy_log_q(weights):
    """log q(y|x) of the deterministic model, z = f(x)."""
    return tiny.log_q(weights, tiny.encoder_outputs(weights, X))


def of_label(log_q):
    return np.take_along_axis(log_q, Y[:, None], axis=-1)[..., 0]


# Equation 17


def gaussian_by_hand(outputs, K, bottleneck):
    """Mean and covariance from the encoder's outputs: appendix B with shift 0."""
    mean, scale, lower = np.split(np.asarray(outputs), [K, 2 * K], axis=-1)
    factor = np.log1p(np.exp(scale))[..., None] * np.eye(K)
    if bottleneck == "full_covariance":
        factor[:, *np.tril_indices(K, k=-1)] = lower
    return mean, factor @ factor.mT


def kl_by_hand(mean, covariance):
    """KL[N(mean, covariance), N(0, I)] in nats."""
    _, log_determinant = np.linalg.slogdet(covariance)
    trace = np.trace(covariance, axis1=-2, axis2=-1)
    return (trace + (mean**2).sum(-1) - mean.shape[-1] - log_determinant) / 2


@pytest.mark.parametrize(("bottleneck", "train_samples"), [("diagonal", 1), ("full_covariance", 5)])
def test_vib_is_distortion_plus_beta_rate_in_nats(bottleneck, train_samples):
    cfg = tiny.vib(bottleneck=bottleneck, train_samples=train_samples)
    weights = float64_weights(cfg)
    outputs = tiny.encoder_outputs(weights, X)
    rate = kl_by_hand(*gaussian_by_hand(outputs, cfg.K, bottleneck))
    z = jax.jit(lambda: tiny.model(cfg, weights).encoder(X).sample(KEY, train_samples))()
    log_q = tiny.log_q(weights, np.asarray(z))
    distortion = np.mean([-of_label(one) for one in log_q], axis=0)
    compiled = compiled_terms(cfg, weights)
    for beta in (0.0, 1e-3, 1.0, 7.5):
        found = compiled(beta=beta)
        np.testing.assert_allclose(found.distortion, distortion, rtol=1e-12)
        np.testing.assert_allclose(found.rate, rate, rtol=1e-12)
        np.testing.assert_allclose(found.objective, distortion + beta * rate, rtol=1e-12)


def test_single_sample_estimator_is_unbiased():
    """Its value and gradient against Gauss-Hermite quadrature of equation 17 (18 at beta = 0)."""
    cfg = tiny.vib(K=1, encoder=tiny.mlp(4, activation="tanh"))
    weights = float64_weights(cfg)
    heads = {part: weights[part]["head"] for part in ("encoder", "decoder")}
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(80)

    def with_heads(heads):
        return {part: {**weights[part], "head": head} for part, head in heads.items()}

    def exact(heads, beta):
        mean, rho = jnp.split(tiny.encoder_outputs(with_heads(heads), X, jnp.tanh), 2, axis=-1)
        scale = jnp.log1p(jnp.exp(rho))
        z = (mean + scale * nodes)[..., None]
        log_q = tiny.log_q(with_heads(heads), z)[jnp.arange(len(Y)), :, Y]
        distortion = -(log_q @ node_weights) / np.sqrt(2 * np.pi)
        rate = (mean**2 + scale**2 - 1 - 2 * jnp.log(scale)).sum(-1) / 2
        return (distortion + beta * rate).mean()

    def estimate(heads, beta, key):
        return terms(cfg, with_heads(heads), key=key, beta=beta).objective.mean()

    estimates = jax.jit(jax.vmap(jax.value_and_grad(estimate), in_axes=(None, None, 0)))
    exactly = jax.jit(jax.value_and_grad(exact))
    for beta in (0.0, 0.3):
        draws = estimates(heads, beta, jax.random.split(KEY, 4000))
        jax.tree.map(tiny.assert_mean, draws, exactly(heads, beta))


SMOOTH = {"encoder": tiny.mlp(5, 4, activation="tanh")}  # differences across a kink are no gradient
DIFFERENTIATED = {
    "vib": tiny.vib(**SMOOTH, beta=0.3),
    "dropout": tiny.deterministic(tiny.dropout(0.3), **SMOOTH),
    "confidence_penalty": tiny.deterministic(tiny.confidence_penalty(0.7), **SMOOTH),
    "label_smoothing": tiny.deterministic(tiny.label_smoothing(0.1), **SMOOTH),
    "vib, full covariance, cnn": tiny.vib(
        beta=0.3, bottleneck="full_covariance", encoder=tiny.cnn(4, activation="tanh")
    ),
}


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradient_at_fixed_noise_is_the_finite_difference(name):
    """In a random direction of each array of weights."""
    cfg = DIFFERENTIATED[name]
    leaves, tree = jax.tree.flatten(float64_weights(cfg))
    draw = np.random.default_rng(0)

    @jax.jit
    @jax.value_and_grad
    def loss(leaves):
        return terms(cfg, jax.tree.unflatten(tree, leaves)).objective.mean()

    _, gradients = jax.device_get(loss(leaves))
    step = 1e-5
    for i, leaf in enumerate(leaves):
        direction = draw.normal(size=leaf.shape)
        up, down = (
            loss([*leaves[:i], leaf + sign * step * direction, *leaves[i + 1 :]])[0]
            for sign in (1, -1)
        )
        slope = np.vdot(gradients[i], direction)
        assert abs(slope) > 1e-4
        np.testing.assert_allclose((up - down) / (2 * step), slope, rtol=1e-5)


# Table 1's regularisers


@pytest.mark.parametrize("confidence", [1, 30])
def test_maximum_likelihood_is_the_cross_entropy(confidence):
    cfg = tiny.deterministic()
    weights = float64_weights(cfg)
    weights["decoder"] = jax.tree.map(lambda w: confidence * w, weights["decoder"])
    found = jax.device_get(compiled_terms(cfg, weights)())
    np.testing.assert_allclose(found.objective, -of_label(numpy_log_q(weights)), rtol=1e-10)
    np.testing.assert_array_equal(found.distortion, found.objective)
    assert found.rate is None


def test_confidence_penalty_is_equation_4():
    cfg = tiny.deterministic(tiny.confidence_penalty(1.0))
    weights = float64_weights(cfg)
    compiled = compiled_terms(cfg, weights)
    prediction = np.exp(numpy_log_q(weights))
    truth = np.eye(10)[Y]

    def cross_entropy(p, q):
        return -(p * np.log(q)).sum(axis=1)

    distortion = cross_entropy(truth, prediction)
    entropy = cross_entropy(prediction, prediction)

    @quickly
    @given(weight=st.floats(0, 20))
    def check(weight):
        found = compiled(weight=weight)
        expected = distortion - weight * entropy
        np.testing.assert_allclose(found.objective, expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found.distortion, distortion, rtol=1e-12)

    check()


def test_label_smoothing_fills_the_zeros_and_renormalises():
    cfg = tiny.deterministic(tiny.label_smoothing(0.1))
    weights = float64_weights(cfg)
    compiled = compiled_terms(cfg, weights)
    log_q = numpy_log_q(weights)

    @quickly
    @given(epsilon=st.floats(0, 1))
    def check(epsilon):
        found = jax.device_get(compiled(epsilon=epsilon))
        for n, label in enumerate(Y):
            target = [1.0 if y == label else epsilon for y in range(10)]
            expected = -np.dot(target, log_q[n]) / sum(target)
            np.testing.assert_allclose(found.objective[n], expected, rtol=1e-12)
        np.testing.assert_allclose(found.distortion, -of_label(log_q), rtol=1e-12)

    check()


@pytest.mark.parametrize(
    "regulariser",
    [tiny.dropout(0.0), tiny.confidence_penalty(0.0), tiny.label_smoothing(0.0)],
    ids=lambda schema: schema.name,
)
def test_a_regulariser_of_strength_zero_is_maximum_likelihood(regulariser):
    cfg = tiny.deterministic(regulariser)
    weights = float64_weights(cfg)
    found = compiled_terms(cfg, weights)().objective
    np.testing.assert_allclose(found, -of_label(numpy_log_q(weights)), rtol=1e-12)


def test_dropout_drops_at_its_rate_and_anew_with_each_key():
    cfg = tiny.deterministic(tiny.dropout(0.4))
    weights = float64_weights(cfg)

    @jax.jit
    def both(key):
        model = tiny.model(cfg, weights)
        logits = deterministic_logits(model, X, dropout_key=key, dropout_rate=0.4)
        return terms(cfg, weights, key=key).distortion, logits

    for key in jax.random.split(KEY, 2):
        found, logits = jax.device_get(both(key))
        np.testing.assert_allclose(found, -of_label(tiny.log_softmax(logits)), rtol=1e-12)
