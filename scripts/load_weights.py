"""The test error at the mean of z of exported weights, in NumPy alone.

python scripts/load_weights.py outputs/paper/weights/vib-K256-beta0.001-seed0-4cc719fa
"""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

directory = Path(sys.argv[1])
mnist = Path(__file__).parents[1] / "vibx" / "data" / "mnist"
images, labels = (
    gzip.decompress((mnist / f"t10k-{name}-ubyte.gz").read_bytes())
    for name in ("images-idx3", "labels-idx1")
)
pixels, labels = np.frombuffer(images[16:], np.uint8), np.frombuffer(labels[8:], np.uint8)
weights = {k: v.astype(np.float32) for k, v in load_file(directory / "model.safetensors").items()}


def dense(layer, x):
    """A layer's output."""
    return x @ weights[f"{layer}.kernel"] + weights[f"{layer}.bias"]


x = pixels.reshape(-1, 784) / np.float32(127.5) - 1
for layer in (f"encoder.hidden.layers.{i}" for i in (0, 1)):
    x = np.maximum(dense(layer, x), 0)
mean = dense("encoder.head", x)[:, :256]  # the scales follow
error = np.mean(dense("decoder.head", mean).argmax(axis=1) != labels)

recorded = json.loads((directory / "metrics.json").read_text())["test"]["error_mean"]
print(f"{directory.name}: {100 * error:.2f}%, its record says {100 * recorded:.2f}%")
