"""Numbers that the paper and its sources publish, to set beside ours. Errors are fractions."""

from typing import Any

BEST_BETA = 1e-3
LAYERS = {"name": "mlp", "widths": [1024, 1024], "activation": "relu"}  # section 4.1

# Table 1, K = 256.
TABLE_1 = {
    "maximum_likelihood": 0.0138,
    "dropout": 0.0134,
    "confidence_penalty": 0.0136,
    "label_smoothing": 0.0140,
    "vib": 0.0113,
}

# Pereyra et al. (2016), cited in Table 1.
PEREYRA = {"dropout": 0.0140, "confidence_penalty": 0.0117, "label_smoothing": 0.0123}

# Figure 2, K = 2 with full covariance: beta -> (err_mc, err_1).
FIGURE_2 = {1e-3: (0.0318, 0.0324), 1e-1: (0.0344, 0.0432), 1.0: (0.3382, 0.6281)}


def published_error(config: dict[str, Any]) -> tuple[float, str] | None:
    """The paper's Monte Carlo error for a run's configuration, and where it stands."""
    objective, bottleneck = config["objective"]["name"], config["bottleneck"]["name"]
    K, beta = config["K"], config["beta"]
    if config["data"]["name"] != "mnist" or objective not in TABLE_1:
        return None
    if K == 256 and bottleneck != "full_covariance" and (objective != "vib" or beta == BEST_BETA):
        return TABLE_1[objective], "Table 1"
    if K == 2 and bottleneck == "full_covariance" and beta in FIGURE_2:
        return FIGURE_2[beta][0], "Figure 2"
    return None


def has_the_papers_network(config: dict[str, Any]) -> bool:
    """Whether a run is of the paper's layers, and on all images: not a miniature, nor another."""
    data = config["data"]
    return (
        {"activation": "relu", **config["encoder"]} == LAYERS
        and config["decoder"]["name"] == "linear"
        and data.get("train_images") is data.get("held_out_images") is None
    )
