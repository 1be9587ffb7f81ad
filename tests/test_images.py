import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from medistill.errors import SourceError
from medistill.images import LabelledImages, Splits, cut
from toys import films


def blank(labels: list[int], classes: int, groups: list[str] | None = None) -> LabelledImages:
    """One film for each label; its number is its first pixel."""
    pixels = np.zeros((len(labels), 1, 8, 8), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(len(labels))
    names = tuple(f"class {index}" for index in range(classes))
    return LabelledImages(pixels, np.array(labels), names, None if groups is None else np.array(groups))


def numbers(images: LabelledImages) -> list[int]:
    return images.pixels[:, 0, 0, 0].tolist()


@given(st.integers(0, 2**32 - 1))
def test_shrinking_from_64_to_32_pixels_averages_2_by_2(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 1, 64, 64)).astype(np.uint8)
    small = LabelledImages(pixels, np.zeros(2, int), ("a",)).shaped(32, 1).pixels
    corners = [pixels[..., top::2, left::2].astype(float) for top in (0, 1) for left in (0, 1)]
    assert small.dtype == np.uint8
    assert np.abs(small - sum(corners) / 4).max() <= 0.5


@pytest.mark.parametrize("size", [8, 12, 16, 20, 31, 40])
def test_an_even_film_stays_as_bright_at_every_size(size):
    even = np.full((1, 1, 16, 20), 77, np.uint8)
    shaped = LabelledImages(even, np.zeros(1, int), ("a",)).shaped(size, 1).pixels
    assert shaped.shape == (1, 1, size, size)
    assert (shaped == 77).all()


def test_a_film_of_the_wanted_shape_is_left_alone():
    images = films()
    assert images.shaped(8, 1).pixels is images.pixels
    assert images.shaped(None, 1).pixels is images.pixels


def test_the_whole_film_is_squeezed_into_the_square():
    wide = np.zeros((1, 1, 8, 16), np.uint8)
    wide[..., :4] = 200
    shaped = LabelledImages(wide, np.zeros(1, int), ("a",)).shaped(8, 1).pixels
    assert (shaped[..., :2] == 200).all()
    assert (shaped[..., 2:] == 0).all()


def test_color_becomes_grey_by_luma_and_grey_three_equal_channels():
    pixels = np.zeros((1, 3, 8, 8), np.uint8)
    pixels[0, :, 0, 0] = (100, 50, 200)  # 29.9 + 29.35 + 22.8
    color = LabelledImages(pixels, np.zeros(1, int), ("a",))
    assert color.shaped(8, 1).pixels[0, :, 0, 0].tolist() == [82]
    assert color.shaped(8, 1).shaped(8, 3).pixels[0, :, 0, 0].tolist() == [82, 82, 82]


def test_two_channels_are_refused():
    pair = LabelledImages(np.zeros((1, 2, 8, 8), np.uint8), np.zeros(1, int), ("a",))
    with pytest.raises(SourceError, match="2 channels; expected 1 or 3"):
        pair.shaped(8, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pixels": np.zeros((3, 8, 8), np.uint8)}, "expected 8-bit values"),
        ({"pixels": np.zeros((3, 1, 8, 8), np.float32)}, "expected 8-bit values"),
        ({"labels": np.zeros(2, int)}, "3 images but 2 labels"),
        ({"groups": np.array(["a"])}, "3 images but 1 groups"),
        ({"labels": np.array([0, 1, 2])}, "labels from 0 to 2; expected 0 to 1"),
        ({"labels": np.array([0, -1, 1])}, "labels from -1 to 1"),
    ],
)
def test_images_that_contradict_themselves_are_refused(changes, said):
    with pytest.raises(SourceError, match=said):
        dataclasses.replace(blank([0, 1, 0], 2), **changes)


def test_images_are_normalized_by_the_statistics_of_their_intensities():
    draw = np.random.default_rng(0)
    images = LabelledImages(draw.integers(0, 256, (5, 3, 8, 8)).astype(np.uint8), np.zeros(5, int), ("a",))
    found = images.transform()
    assert found.mean == pytest.approx((images.pixels / 255).mean((0, 2, 3)), abs=1e-6)
    assert found.std == pytest.approx((images.pixels / 255).std((0, 2, 3)), abs=1e-6)


def test_black_films_have_a_spread_to_divide_by():
    assert blank([0], 1).take(np.array([0])).transform().std == (1e-6,)


@st.composite
def labelled_groups(draw: st.DrawFn) -> LabelledImages:
    """Two or three classes whose patients hold one to four films each, sometimes of several classes."""
    classes = draw(st.integers(2, 3))
    patients = draw(st.lists(st.lists(st.integers(0, classes - 1), min_size=1, max_size=4), min_size=6, max_size=20))
    films_of = [(label, f"patient {index}") for index, labels in enumerate(patients) for label in labels]
    order = draw(st.permutations(range(len(films_of))))
    return blank([films_of[i][0] for i in order], classes, [films_of[i][1] for i in order])


@given(labelled_groups(), st.floats(0.05, 0.49), st.integers(0, 2**31))
def test_a_cut_never_splits_a_group_and_loses_no_image(images, fraction, seed):
    try:
        stays, leaves = cut(images, fraction, seed)
    except SourceError:
        assume(False)
    assert not set(stays.groups) & set(leaves.groups)
    assert sorted(numbers(stays) + numbers(leaves)) == sorted(numbers(images))


@given(labelled_groups(), st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_a_cut_keeps_every_class_on_both_sides_or_is_refused(images, fraction, seed):
    try:
        parts = cut(images, fraction, seed)
    except SourceError as error:
        assert "at least 2 are needed" in str(error)  # noqa: PT017 (either outcome is lawful)
        return
    assert all(part.counts.min() >= 1 for part in parts)


@given(st.lists(st.integers(2, 40), min_size=2, max_size=3), st.floats(0.05, 0.49), st.integers(0, 2**31))
def test_about_the_fraction_of_every_class_is_cut_off(counts, fraction, seed):
    images = blank(np.repeat(np.arange(len(counts)), counts).tolist(), len(counts))
    _, leaves = cut(images, fraction, seed)
    for count, taken in zip(counts, leaves.counts, strict=True):
        assert abs(taken - max(1, fraction * count)) <= 1


def test_a_cut_depends_on_its_seed_alone():
    images = films((20, 20), grouped=True)
    assert numbers(cut(images, 0.3, 1)[1]) == numbers(cut(images, 0.3, 1)[1])
    assert len({tuple(cut(images, 0.3, seed)[1].groups) for seed in range(5)}) > 1


def test_a_class_with_one_image_is_refused_by_name():
    with pytest.raises(SourceError, match=r"Class class 1 has 1 image\(s\) of 1 patient"):
        cut(blank([0, 0, 1], 2), 0.3, 0)


def test_a_class_with_one_patient_is_refused_by_name():
    with pytest.raises(SourceError, match=r"Class class 1 has 2 image\(s\) of 1 patient"):
        cut(blank([0, 0, 1, 1], 2, ["a", "b", "c", "c"]), 0.3, 0)


def three(images: LabelledImages) -> Splits:
    return Splits(images, films(seed=1, grouped=True), films(seed=2, grouped=True))


def test_the_fingerprint_changes_with_any_pixel_label_group_or_name():
    images = films(grouped=True)
    pixels, labels, groups = images.pixels.copy(), images.labels.copy(), images.groups.copy()
    pixels[3, 0, 2, 1] += 1
    labels[0] = 1 - labels[0]
    groups[0] = "someone"
    others = [
        dataclasses.replace(images, pixels=pixels),
        dataclasses.replace(images, labels=labels),
        dataclasses.replace(images, groups=groups),
        dataclasses.replace(images, groups=None),
        dataclasses.replace(images, class_names=("class 0", "another")),
        images.take(np.arange(len(images))[::-1]),
        images.take(np.arange(len(images) - 1)),
        dataclasses.replace(images, pixels=images.pixels.reshape(-1, 1, 4, 16)),
    ]
    prints = {three(other).fingerprint() for other in [images, *others]}
    assert len(prints) == 1 + len(others)
    assert three(films(grouped=True)).fingerprint() == three(images).fingerprint()


def test_the_fingerprint_changes_when_splits_change_places():
    one, two, three_ = films(seed=0), films(seed=1), films(seed=2)
    assert Splits(one, two, three_).fingerprint() != Splits(one, three_, two).fingerprint()


def test_classes_are_matched_by_name_and_never_by_index():
    images = dataclasses.replace(blank([0, 1, 2], 3), class_names=("b", "c", "a"))
    matched = images.in_order_of(("a", "b", "c", "d"))
    assert matched.labels.tolist() == [1, 2, 0]
    assert matched.class_names == ("a", "b", "c", "d")
    with pytest.raises(SourceError, match="Found the classes c, which are not among a, b"):
        images.in_order_of(("a", "b"))


def test_classes_without_names_are_matched_by_index():
    images = dataclasses.replace(blank([0, 1], 2), named=False)
    assert images.in_order_of(("x", "y", "z")).labels.tolist() == [0, 1]
    with pytest.raises(SourceError, match="Found labels up to 1 without class names; expected 0 to 0"):
        images.in_order_of(("x",))


def test_a_class_without_images_needs_no_counterpart():
    images = dataclasses.replace(blank([0, 2, 2], 3), class_names=("b", "nobody's", "a"))
    assert images.in_order_of(("a", "b")).labels.tolist() == [1, 0, 0]


def test_images_are_found_among_others_by_their_pixels_and_their_patients():
    ours, theirs = films((4, 4), seed=1, grouped=True), films((4, 4), seed=2, grouped=True)
    alone = dataclasses.replace(ours, groups=None)
    assert alone.seen_in(theirs) == 0
    assert alone.take(np.array([1, 5])).seen_in(ours) == 2
    one_patient = theirs.take(np.array([2]))  # patient 1
    assert ours.seen_in(one_patient) == 2
