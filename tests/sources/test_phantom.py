import hashlib

import numpy as np
import pytest

from medistill.images import LabelledImages
from medistill.sources.phantom import CLASS_NAMES, _render, read_phantom

# Frozen before any distillation on the phantom was looked at: changing the phantom to suit a result would show here.
DIGEST = "a24b4aa7e80f4c2cb790f153cfd620e14e55a808999bd69fbb317f59d28257a8"


@pytest.fixture(scope="module")
def phantom() -> dict[str, LabelledImages]:
    return read_phantom(None, 1)


def test_the_phantom_is_the_one_that_was_frozen(phantom: dict[str, LabelledImages]) -> None:
    hashed = hashlib.sha256()
    for split, images in phantom.items():
        hashed.update(split.encode() + images.pixels.tobytes() + images.labels.tobytes())
    assert hashed.hexdigest() == DIGEST


def test_every_class_is_equally_frequent_in_every_split(phantom: dict[str, LabelledImages]) -> None:
    assert {split: images.counts.tolist() for split, images in phantom.items()} == {
        "train": [500] * 4,
        "val": [100] * 4,
        "test": [250] * 4,
    }


def test_no_image_is_in_two_splits(phantom: dict[str, LabelledImages]) -> None:
    seen = [image.tobytes() for images in phantom.values() for image in images.pixels]
    assert len(set(seen)) == len(seen)
    groups = np.concatenate([images.groups for images in phantom.values() if images.groups is not None])
    assert len(set(groups)) == len(seen)


def test_brightness_alone_does_not_tell_the_classes_apart(phantom: dict[str, LabelledImages]) -> None:
    train = phantom["train"]
    brightness = train.pixels.mean((1, 2, 3))
    means = [brightness[train.labels == index].mean() for index in range(len(CLASS_NAMES))]
    assert max(means) - min(means) < brightness.std()


def test_three_channels_repeat_the_one(phantom: dict[str, LabelledImages]) -> None:
    colored = phantom["val"].shaped(None, 3).pixels
    assert colored.shape == (400, 3, 32, 32)
    assert (colored == phantom["val"].pixels).all()


def test_the_phantom_is_the_same_object_at_every_size() -> None:
    labels = np.arange(80) % len(CLASS_NAMES)
    films = (_render(labels, size, np.random.default_rng(0)) for size in (32, 64))
    small, large = (LabelledImages(pixels, labels, CLASS_NAMES).shaped(32, 1) for pixels in films)
    difference = np.abs(small.pixels.astype(float) - large.pixels.astype(float)).mean((1, 2, 3))
    other = np.abs(np.roll(small.pixels, 1, 0).astype(float) - large.pixels.astype(float)).mean((1, 2, 3))
    assert (difference < other).mean() > 0.95
