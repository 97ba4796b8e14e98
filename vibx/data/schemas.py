"""Data sets as choices of the configuration. Imports no jax.

No compiled program sees these fields: `COMPILED` says what it does, and images are arguments.
"""

import abc
import functools
import os
from dataclasses import dataclass
from typing import ClassVar

from vibx.choices import apart, choice, require
from vibx.data import arrays, idx, tfds
from vibx.data.images import DataInfo


@dataclass(frozen=True)
class Data(abc.ABC):
    """A data set and the part of it that is used.

    `validation` holds out the last so many training images in place of the test set;
    `train_images` and `held_out_images` keep the first so many of what is then there, None all.
    """

    COMPILED: ClassVar = ("info", "train_size")

    name: str = apart()
    validation: int = apart(default=0)
    train_images: int | None = apart(default=None)
    held_out_images: int | None = apart(default=None)

    def __post_init__(self) -> None:
        require(self.validation >= 0, "validation", self.validation, "at least 0")
        for key in ("train_images", "held_out_images"):
            value = getattr(self, key)
            require(value is None or value >= 1, key, value, "at least 1, or null for all")

    @functools.cached_property
    @abc.abstractmethod
    def info(self) -> DataInfo:
        """The whole data set."""

    @functools.cached_property
    def train_size(self) -> int:
        """Number of images that are trained on."""
        return self.train_images or self.info.train_images - self.validation

    @property
    def held_out_size(self) -> int:
        """Number of images that are evaluated on."""
        return self.held_out_images or self.validation or self.info.test_images

    def check_sizes(self) -> None:
        """Raise `ConfigError` where more is asked for than the data set has."""
        last = self.info.train_images - 1
        require(
            self.validation <= last,
            "data.validation",
            self.validation,
            f"between 0 and {last}",
        )
        available = {
            "train_images": self.info.train_images - self.validation,
            "held_out_images": self.validation or self.info.test_images,
        }
        for key, most in available.items():
            value = getattr(self, key)
            require(
                value is None or value <= most,
                f"data.{key}",
                value,
                f"between 1 and {most}, or null for all",
            )


@choice("data", *idx.SETS)
@dataclass(frozen=True)
class IDX(Data):
    """MNIST and the sets in its format."""

    @functools.cached_property
    def info(self) -> DataInfo:
        """The whole data set."""
        return idx.SETS[self.name]


@choice("data", "arrays")
@dataclass(frozen=True)
class Arrays(Data):
    """A researcher's own arrays in an `.npz` file, which is known by its digest, not its path."""

    path: str = apart(kw_only=True, compare=False)
    sha256: str | None = apart(kw_only=True, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "path", "", "the .npz file with the arrays")
        # Absolute, so that what is done with the run later finds it from any directory.
        object.__setattr__(self, "path", os.path.abspath(os.path.expanduser(self.path)))
        if self.sha256 is None:
            object.__setattr__(self, "sha256", arrays.sha256(self.path))

    @functools.cached_property
    def info(self) -> DataInfo:
        """The whole data set."""
        return arrays.describe(self.path, sha256=str(self.sha256))


@choice("data", "tfds")
@dataclass(frozen=True)
class TFDS(Data):
    """A set that TensorFlow Datasets has prepared; without a version, the newest."""

    dataset: str = apart(kw_only=True)
    version: str | None = apart(kw_only=True, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.dataset), "dataset", "", "a data set of TFDS, as cifar10")
        if self.version is None:
            dataset, version = tfds.pinned(self.dataset)
            object.__setattr__(self, "dataset", dataset)
            object.__setattr__(self, "version", version)

    @functools.cached_property
    def info(self) -> DataInfo:
        """The whole data set."""
        return tfds.describe(self.dataset, str(self.version))
