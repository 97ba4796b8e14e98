"""Equation 14: I(Z, X) <= E[KL[p(z|x), r(z)]]."""

from vibx.evaluation.measure import Measure, mean
from vibx.information import izx_upper

MEASURE = Measure(
    name="izx_upper_bits",
    label="I(Z,X) at most, bits",
    order=70,
    unit="bits",
    smaller_is_better=None,
    per_image=lambda samples: samples.rate,
    over_images=lambda values, labels: izx_upper(mean(values, labels)),
    history=False,
)
