"""Bounds on the two mutual informations, from means over a data set, and their units."""

import math

import numpy as np

LN2 = math.log(2)


def bits(nats: float) -> float:
    """Convert nats to bits."""
    return nats / LN2


def label_entropy(labels: np.ndarray) -> float:
    """H(Y) of the empirical label distribution, in nats."""
    p = np.bincount(labels) / len(labels)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def izy_lower(labels: np.ndarray, distortion: float) -> float:
    """Equation 12, with the H(Y) of equation 11: I(Z, Y) >= H(Y) - E[-log q(y|z)], in nats."""
    return label_entropy(labels) - distortion


def izx_upper(rate: float) -> float:
    """Equation 14: I(Z, X) <= E[KL[p(z|x), r(z)]], in nats."""
    return rate
