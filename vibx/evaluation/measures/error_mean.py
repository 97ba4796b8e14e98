"""The error with z at the mean of p(z|x)."""

from vibx.evaluation.measure import Measure, wrong

MEASURE = Measure(
    name="error_mean",
    label="error, mean of z",
    order=30,
    unit="fraction",
    smaller_is_better=True,
    per_image=lambda samples: samples.logits_at_mean.argmax(),
    over_images=wrong,
    history=False,
)
