"""The first term of equation 17, E[-log q(y|z)]."""

from vibx.evaluation.measure import Measure

MEASURE = Measure(
    name="distortion_bits",
    label="distortion, bits",
    order=40,
    unit="bits",
    smaller_is_better=True,
    per_image=lambda samples: samples.cross_entropy.mean(),
)
