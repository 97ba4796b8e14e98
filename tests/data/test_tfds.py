"""Sets of TFDS: small ones that a builder of its own prepares, and that are then read."""

import contextlib
import io
import json
import logging
import os
import shutil
import struct
from functools import partial

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from tests.data.files import error_of, flip_a_bit
from vibx.choices import identity
from vibx.data import DataError, load, load_test
from vibx.data.schemas import TFDS
from vibx.data.tfds import array_records

SHAPE = (16, 16, 3)
SIZES = {"train": 40, "test": 12, "validation": 9, "extra": 5}
FEATURES = {
    "image": tfds.features.Image(shape=SHAPE),
    "label": tfds.features.ClassLabel(num_classes=4),
    "id": tfds.features.Text(),
}
data = partial(TFDS, "tfds")


def build(
    root, *, splits=("train", "test"), config=None, seed=0, label_of=lambda i: i % 4, **features
):
    """Prepares the set `colours` as its author would, without TensorFlow."""

    class Colours(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "colours"
        VERSION = tfds.core.Version("1.2.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({**FEATURES, **features})
            )

        def _split_generators(self, download_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            random = np.random.default_rng([seed, SIZES[split]])
            for i in range(SIZES[split]):
                image = PIL.Image.fromarray(random.integers(0, 256, SHAPE, np.uint8))
                yield i, {"image": image, "label": label_of(i), "id": f"{split}{i}"}

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder = Colours(data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    return builder


@pytest.fixture
def root(tmp_path, monkeypatch, empty_cache):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    return build(root), root / "colours"


@pytest.fixture
def colours(prepared, root):
    """A copy of the prepared set where TFDS keeps them."""
    shutil.copytree(prepared[1], root / "colours")
    return root / "colours" / "1.2.0"


def assert_as_tfds_reads_them(loaded, builder):
    for images, split in ((loaded.train, "train"), (loaded.held_out, "test")):
        examples = list(builder.as_data_source(split))
        assert len(examples) == len(images.labels)
        assert (images.pixels.dtype, images.labels.dtype) == (np.uint8, np.int32)
        for pixels, label, example in zip(*images, examples, strict=True):
            np.testing.assert_array_equal(pixels.reshape(SHAPE), example["image"])
            assert label == example["label"]


def as_tfrecord(directory):
    """Stores the records of a prepared set in TFDS's other format."""
    for path in directory.glob("*.array_record-*"):
        with open(str(path).replace("array_record", "tfrecord"), "wb") as file:
            for record in array_records(path):
                file.write(struct.pack("<Q4x", len(record)) + record + b"\0\0\0\0")
        path.unlink()
    info = json.loads((directory / "dataset_info.json").read_text())
    (directory / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))


@pytest.mark.parametrize("place", ["TFDS's directory", "the cache directory"])
def test_a_prepared_set_is_read(prepared, colours, empty_cache, place):
    if place == "the cache directory":
        shutil.copytree(colours, empty_cache / "tfds" / "colours" / "1.2.0")
        shutil.rmtree(colours)
    chosen = data(dataset="colours")
    assert (chosen.dataset, chosen.version) == ("colours", "1.2.0")
    assert (chosen.info.shape, chosen.info.classes) == (SHAPE, 4)
    assert (chosen.info.train_images, chosen.info.test_images) == (40, 12)
    assert chosen.info.source == "TFDS colours:1.2.0"
    assert_as_tfds_reads_them(load(chosen), prepared[0])


def test_tfrecord_is_read_without_tensorflow(prepared, colours):
    as_tfrecord(colours)
    assert_as_tfds_reads_them(load(data(dataset="colours")), prepared[0])


def test_the_version_is_part_of_the_identity(colours):
    newest = data(dataset="colours")
    assert data(dataset="colours:1.2.0") == newest
    assert identity(newest)["version"] == "1.2.0"
    for version in ("1.10.0", "1.9.0"):
        shutil.copytree(colours, colours.with_name(version))
    assert data(dataset="colours").version == "1.10.0"
    assert data(dataset="colours:1.2.0") == newest


def test_a_record_is_parsed_where_its_set_is_gone(colours):
    chosen = data(dataset="colours")
    shutil.rmtree(colours)
    again = data(dataset="colours", version="1.2.0")
    assert again == chosen
    with pytest.raises(DataError, match="colours:1\\.2\\.0: not prepared in"):
        load(again)


def test_decoded_once_until_it_is_prepared_again(root, caplog):
    caplog.set_level(logging.INFO, "vibx")
    build(root)
    first = load_test(data(dataset="colours"))
    assert (load_test(data(dataset="colours")).pixels == first.pixels).all()
    assert [record.getMessage() for record in caplog.records] == ["preparing colours:1.2.0 (once)"]
    shutil.rmtree(root / "colours")
    build(root, seed=1)
    assert (load_test(data(dataset="colours")).pixels != first.pixels).any()


def test_a_configuration_of_a_builder(root):
    build(root, config="bright")
    assert data(dataset="colours").dataset == "colours/bright"
    build(root, config="dark", seed=1)
    assert error_of(data, dataset="colours") == (
        "data.dataset=colours: must be one of colours/bright, colours/dark"
    )
    bright, dark = (load(data(dataset=f"colours/{name}:1.2.0")) for name in ("bright", "dark"))
    assert (bright.train.pixels != dark.train.pixels).any()


def test_a_validation_split_stands_in_for_the_test_set(root):
    build(root, splits=("train", "validation", "extra"))
    info = data(dataset="colours").info
    assert info.test_images == SIZES["validation"]
    assert info.source == "TFDS colours:1.2.0, split validation as the test set"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": ("train", "extra")}, "has the splits train, extra: must have train, and test"),
        ({"splits": ("test",)}, "has the splits test: must have train"),
        ({"label": tfds.features.Scalar(np.int64)}, "has id, image, label: must have an image an"),
        (
            {"image": tfds.features.Image(shape=(None, None, 3))},
            "its images are uint8 of any x any x 3: must be uint8 of one size",
        ),
    ],
)
def test_sets_that_are_not_for_this(root, options, message):
    build(root, **options)
    assert f"data.dataset=colours:1.2.0: {message}" in error_of(data, dataset="colours")


def test_unlabelled_examples_are_refused(root):
    build(root, label_of=lambda index: -1)
    said = error_of(data, dataset="colours")
    assert "example 1 of 40 is 16 x 16 x 3 and of class -1: must be" in said


@pytest.mark.parametrize("as_format", [lambda directory: None, as_tfrecord])
def test_damaged_files(colours, empty_cache, as_format):
    [shard] = colours.glob("colours-train.*")
    inside = next(array_records(shard))[400:420]  # of an image
    as_format(colours)
    [shard] = colours.glob("colours-train.*")
    whole = shard.read_bytes()
    flip_a_bit(shard, at=whole.index(inside))
    assert f"{colours} is damaged" in error_of(data, dataset="colours")
    shard.write_bytes(whole[: whole.index(inside)])
    assert f"{colours} is damaged" in error_of(data, dataset="colours")
    shard.unlink()
    assert f"{colours} is damaged" in error_of(data, dataset="colours")
    assert all(name.endswith(".lock") for name in os.listdir(empty_cache))


def test_what_is_not_prepared(root, empty_cache):
    assert error_of(data, dataset="cifar10") == (
        f"data.dataset=cifar10: not prepared in {empty_cache}/tfds or {root}: run `tfds build "
        "cifar10` where TensorFlow is installed, and put what it made there"
    )
    assert error_of(data, dataset="../colours").endswith(
        "must be a name, as cifar10 or cifar10:3.0.2"
    )
    assert error_of(data, dataset="") == "dataset=: must be a data set of TFDS, as cifar10"
