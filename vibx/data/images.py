"""What a data set is: images with labels, in two splits, and their description. Imports no jax."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vibx.errors import UserError

MOST_BYTES = 2**30
ARRAYS = ("train_pixels", "train_labels", "test_pixels", "test_labels")


class DataError(UserError):
    """What is wrong with the data, or with what was asked of it, and what to do: one line."""


@dataclass(frozen=True)
class DataInfo:
    """What is known about a data set without reading it.

    Attributes:
        shape: Height, width and channels of every image.
        classes: Number of classes; labels are from 0 to classes - 1.
        train_images: Number of images to train on, a validation split included.
        test_images: Number of test images.
        source: Where it comes from: a publication, a set of TFDS or a file.
    """

    shape: tuple[int, int, int]
    classes: int
    train_images: int
    test_images: int
    source: str = field(compare=False)  # sets of the same sizes share a compiled program

    @property
    def pixels(self) -> int:
        """Numbers in an image."""
        height, width, channels = self.shape
        return height * width * channels


class Images(NamedTuple):
    """Images and their labels, as arrays of numpy or on the device.

    Attributes:
        pixels: uint8[n, h * w * c], from 0 to 255, row by row, channels last.
        labels: int32[n], from 0 to classes - 1.
    """

    pixels: Any
    labels: Any


class Splits(NamedTuple):
    """All images of a data set."""

    train: Images
    test: Images


def splits_from(arrays: Mapping[str, Any]) -> Splits:
    """The splits whose arrays have the names in `ARRAYS`."""
    train_pixels, train_labels, test_pixels, test_labels = (arrays[name] for name in ARRAYS)
    return Splits(Images(train_pixels, train_labels), Images(test_pixels, test_labels))


def require_room(size: int) -> None:
    """Refuse more bytes of pixels than are kept on a device."""
    if size > MOST_BYTES:
        raise DataError(
            f"{size / 2**30:.1f} GiB of pixels: at most {MOST_BYTES / 2**30:g} GiB, because all of "
            "them are kept on the device"
        )


def by(shape: Iterable[int | str]) -> str:
    """A shape as it is said: 16 x 16 x 3."""
    return " x ".join(map(str, shape))
