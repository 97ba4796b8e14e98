"""The error of a single sample of z ("1-shot")."""

from vibx.evaluation.measure import Measure, wrong

MEASURE = Measure(
    name="error_1",
    label="error, 1 sample",
    order=20,
    unit="fraction",
    smaller_is_better=True,
    per_image=lambda samples: samples.log_q[0].argmax(),
    over_images=wrong,
    column="error_1",
    stored_as="class_1",
)
