"""The negative log-likelihood of the true class under the averaged prediction."""

from vibx.evaluation.measure import Measure, mean

MEASURE = Measure(
    name="nll_mc_bits",
    label="-log2 of the average q(y|z), bits",
    order=80,
    unit="bits",
    smaller_is_better=True,
    per_image=lambda samples: samples.log_p[samples.label],
    over_images=lambda values, labels: -mean(values, labels),
    history=False,
    stored_as="log_probability_mc",
)
