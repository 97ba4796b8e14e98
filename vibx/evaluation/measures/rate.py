"""KL[p(z|x), r(z)] of equation 17, which beta weighs."""

from vibx.evaluation.measure import Measure

MEASURE = Measure(
    name="rate_bits",
    label="rate, bits",
    order=50,
    unit="bits",
    smaller_is_better=None,
    per_image=lambda samples: samples.rate,
    column="rate, bits",
)
