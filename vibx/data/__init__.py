"""Image data sets: configuration, description, and uint8 arrays. Imports no jax; `device` does."""

from vibx.data.images import DataError, DataInfo, Images
from vibx.data.loading import Dataset, load, load_test

__all__ = ["DataError", "DataInfo", "Dataset", "Images", "load", "load_test"]
