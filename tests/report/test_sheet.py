import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medistill.package import pack
from medistill.report import sheet
from medistill.report.sheet import contact_sheet, package_sheet
from samples import contents

NAMES = ("normal", "pneumonia")


def drawn(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def colored(count: int, side: int = 8) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Images of one strong color each, which no letter of the sheet has."""
    colors = [(255, 10 * index, 0) for index in range(count)]
    planes = np.array(colors, dtype=np.float32)[:, :, None, None] / 255
    return np.broadcast_to(planes, (count, 3, side, side)).astype(np.float32), colors


def place(picture: np.ndarray, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the one filled rectangle of a color."""
    ys, xs = np.nonzero((picture == color).all(axis=2))
    top, left, height, width = ys.min(), xs.min(), np.ptp(ys) + 1, np.ptp(xs) + 1
    assert len(ys) == height * width
    return int(top), int(left), int(height), int(width)


def test_every_image_has_its_tile_in_the_row_of_its_class() -> None:
    images, colors = colored(5)
    picture = drawn(contact_sheet(images, np.array([0, 1, 0, 1, 1]), NAMES, caption="a set", scale=4))
    places = [place(picture, color) for color in colors]
    assert all(found[2:] == (32, 32) for found in places)
    first, second = [places[0], places[2]], [places[1], places[3], places[4]]
    for members in (first, second):
        assert len({top for top, *_ in members}) == 1
        assert [left for _, left, *_ in members] == sorted(left for _, left, *_ in members)
    assert first[0][0] + 32 < second[0][0]
    assert first[0][1] == second[0][1]


def test_soft_labels_count_by_their_most_probable_class() -> None:
    images, _ = colored(3)
    hard = np.array([1, 0, 1])
    soft = np.array([[0.1, 0.9], [0.6, 0.4], [0.49, 0.51]], dtype=np.float32)
    assert contact_sheet(images, soft, NAMES, caption="") == contact_sheet(images, hard, NAMES, caption="")


@pytest.mark.parametrize(("side", "factor"), [(8, 9), (28, 3), (32, 2), (48, 2), (64, 1), (100, 1)])
def test_a_tile_is_enlarged_by_a_whole_number(side: int, factor: int) -> None:
    images, colors = colored(1, side)
    picture = drawn(contact_sheet(images, np.array([0]), NAMES, caption=""))
    assert place(picture, colors[0])[2:] == (side * factor, side * factor)


def test_a_large_image_is_reduced_to_the_mean_of_its_blocks() -> None:
    images = np.zeros((1, 1, 720, 720), dtype=np.float32)
    images[:, :, ::2] = 1
    picture = drawn(contact_sheet(images, np.array([0]), NAMES, caption=""))
    assert ((picture == 127) | (picture == 128)).all(axis=2).sum() == 72 * 72


def test_the_window_clips_and_never_stretches() -> None:
    images = np.stack([np.full((1, 8, 8), value, dtype=np.float32) for value in (-1, 0, 0.5, 1, 2)])
    picture = drawn(contact_sheet(images, np.zeros(5, dtype=np.int64), NAMES, caption="", scale=4))
    assert (picture == 0).all(axis=2).sum() == 2 * 32 * 32
    assert (picture == 128).all(axis=2).sum() == 32 * 32


def test_the_same_images_give_the_same_bytes() -> None:
    images = np.random.default_rng(0).random((6, 1, 8, 8), dtype=np.float32)
    labels = np.arange(6) % 2
    once = contact_sheet(images, labels, NAMES, caption="a set")
    assert once == contact_sheet(images.copy(), labels.copy(), NAMES, caption="a set")
    assert once != contact_sheet(images, labels, NAMES, caption="another set")


def test_a_sheet_stays_bounded_whatever_it_is_given() -> None:
    names = tuple(f"class {index} with a name that is far too long to be written in one line" for index in range(45))
    images = np.ones((45 * 30, 1, 8, 8), dtype=np.float32)
    picture = drawn(contact_sheet(images, np.repeat(np.arange(45), 30), names, caption="word " * 40))
    assert picture.shape[1] < 29 * 72
    assert picture.shape[0] < 42 * 80


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is drawn from now on."""
    texts: list[str] = []
    draw = sheet.ImageDraw.ImageDraw.multiline_text
    monkeypatch.setattr(
        sheet.ImageDraw.ImageDraw,
        "multiline_text",
        lambda self, at, text, *rest, **more: (texts.append(text), draw(self, at, text, *rest, **more))[1],
    )
    return texts


def test_the_caption_says_how_many_of_how_many(written: list[str]) -> None:
    contact_sheet(np.ones((25, 1, 8, 8), np.float32), np.zeros(25, np.int64), NAMES, caption="a set")
    said = " ".join(" ".join(written).split())
    assert "a set" in said
    assert sheet.WINDOW in said
    assert "24 of 25 images shown" in said
    assert "normal" in said
    assert "pneumonia" in said


def test_the_caption_says_how_many_films_each_image_holds(written: list[str]) -> None:
    said = []
    for formation in (1, 2):
        written.clear()
        contact_sheet(np.ones((2, 1, 8, 8), np.float32), np.arange(2), NAMES, caption="", formation=formation)
        said.append(" ".join(" ".join(written).split()))
    assert "2 of 2 images shown; 9 times enlarged" in said[0]
    assert "2 of 2 images shown; 2 x 2 films in each image; 9 times enlarged" in said[1]


def test_letters_that_the_font_lacks_never_become_boxes(written: list[str]) -> None:
    contact_sheet(np.ones((1, 1, 8, 8), np.float32), np.array([0]), ("Ödem", "肺炎"), caption="a set")
    assert written[2:] == ["Odem", "class 2"]


@pytest.mark.parametrize(("leaks", "said"), [(False, "toy: synthetic images"), (True, "toy: images")])
def test_the_sheet_of_a_package_calls_nothing_synthetic_that_may_show_patients(
    leaks: bool, said: str, written: list[str], tmp_path: Path
) -> None:
    provenance = contents()["provenance"].model_copy(update={"leaks_real_images": leaks})
    package_sheet(pack(tmp_path / "toy.medistill", **contents(provenance=provenance)), "toy")
    assert said in written
