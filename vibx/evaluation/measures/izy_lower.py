"""Equations 11 and 12: I(Z, Y) >= H(Y) - E[-log q(y|z)]."""

from vibx.evaluation.measure import Measure, mean
from vibx.information import izy_lower

MEASURE = Measure(
    name="izy_lower_bits",
    label="I(Z,Y) at least, bits",
    order=60,
    unit="bits",
    smaller_is_better=False,
    per_image=lambda samples: samples.cross_entropy.mean(),
    over_images=lambda values, labels: izy_lower(labels, mean(values, labels)),
    column="I(Z,Y), bits",
    history=False,
)
