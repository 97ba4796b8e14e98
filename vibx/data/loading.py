"""Data sets as numpy arrays, found by their schema."""

from typing import NamedTuple

from vibx.choices import found_by_schema
from vibx.data import arrays, idx, tfds
from vibx.data.images import Images, Splits
from vibx.data.schemas import IDX, TFDS, Arrays, Data


class Dataset(NamedTuple):
    """Images to train on, and images to evaluate on.

    Attributes:
        train: The training images, less the validation split.
        held_out: The test set, or the validation split when one was asked for.
        held_out_name: "test" or "validation".
    """

    train: Images
    held_out: Images
    held_out_name: str


def load(data: Data) -> Dataset:
    """The part of a data set that its configuration asks for, in the order of its files.

    Raises:
        ConfigError: it asks for more than there is.
        DataError: the data set cannot be read.
    """
    data.check_sizes()
    train, held_out = read_splits(data)
    name = "test"
    if data.validation:
        name = "validation"
        held_out = slice_of(train, slice(-data.validation, None))
        train = slice_of(train, slice(-data.validation))
    return Dataset(
        train=slice_of(train, slice(data.train_images)),
        held_out=slice_of(held_out, slice(data.held_out_images)),
        held_out_name=name,
    )


def load_test(data: Data) -> Images:
    """All test images, also where the configuration holds out a validation split.

    Raises:
        DataError: the data set cannot be read.
    """
    return read_splits(data).test


@found_by_schema
def read_splits(data: Data) -> Splits:  # type: ignore[empty-body]
    """All images of a data set.

    Raises:
        DataError: it cannot be read.
    """


@read_splits.register(IDX)
def _(data: IDX) -> Splits:
    return idx.read_set(data.name)


@read_splits.register(Arrays)
def _(data: Arrays) -> Splits:
    return arrays.read(data.path, sha256=str(data.sha256))


@read_splits.register(TFDS)
def _(data: TFDS) -> Splits:
    return tfds.read(data.dataset, str(data.version))


def slice_of(images: Images, part: slice) -> Images:
    """Some of the images, with their labels."""
    return Images(images.pixels[part], images.labels[part])
