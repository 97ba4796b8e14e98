"""The error of the averaged prediction, as in Table 1."""

from vibx.evaluation.measure import Measure, wrong

MEASURE = Measure(
    name="error_mc",
    label="error, average of {mc_samples} samples",
    order=10,
    unit="fraction",
    smaller_is_better=True,
    per_image=lambda samples: samples.log_p.argmax(),
    over_images=wrong,
    column="error_mc",
    stored_as="class_mc",
)
