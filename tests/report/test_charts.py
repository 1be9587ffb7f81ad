import re
from xml.etree import ElementTree

import made_up
import numpy as np
import pytest

from medistill.evidence import Compared
from medistill.report import charts
from medistill.report.charts import accuracy_for_bytes, calibration_curves, growth_curves, roc_curves

BUDGETS = (
    *made_up.COMPARED,
    made_up.compared("random", 0.5, 5),
    made_up.compared("pruned", 0.6, 5),
)


@pytest.mark.parametrize("draw", [accuracy_for_bytes, calibration_curves, growth_curves, roc_curves])
@pytest.mark.parametrize("rows", [made_up.COMPARED, BUDGETS, made_up.COMPARED[1:2], made_up.COMPARED[:1]])
def test_a_chart_is_whole_names_no_address_and_takes_its_colors_from_the_page(draw, rows) -> None:
    svg = draw([row for row in rows if row.protocol])
    ElementTree.fromstring(svg)
    assert "http" not in svg
    assert not re.search(r"(?<!, )#[0-9a-f]{6}", svg)
    assert svg == draw([row for row in rows if row.protocol])


def test_methods_stand_with_their_family_under_the_name_that_people_know() -> None:
    svg = roc_curves([row for row in made_up.COMPARED if row.protocol])
    for words in ("Few real images", "Distilled images", "Pre-trained on the few", "Pre-trained on all, unlabelled"):
        assert f">{words}<" in svg
    assert svg.count(">BYOL, fine-tuned<") == 2
    assert svg.count(">all real images, balanced sampling<") == 5
    assert "linear probe" not in svg


def test_a_family_nobody_asked_for_has_no_panel() -> None:
    svg = roc_curves([row for row in made_up.COMPARED if row.name in ("dm", "pruned")])
    assert ">Distilled images<" in svg
    assert "Few real images" not in svg


@pytest.mark.parametrize("draw", [calibration_curves, growth_curves, roc_curves])
def test_every_network_has_panels_of_its_own_and_none_of_its_rows_is_lost(draw) -> None:
    others = (
        made_up.compared("scratch", 0.5),
        made_up.compared("scratch-vit", 0.4, architecture="vit"),
        made_up.compared("mae", 0.5, architecture="vit"),
        made_up.compared("pruned-resnet18", 0.6, architecture="resnet18"),
        made_up.compared("transfer-vit (films)", 0.6, architecture="vit"),
    )
    svg = draw([row for row in (*made_up.COMPARED, *others) if row.protocol])
    for title in ("Distilled images, ConvNet", "Distilled images, ResNet-18", "Pre-trained on the few, ViT"):
        assert f">{title}<" in svg
    assert ">pruned trajectory matching (ResNet-18)<" in svg
    assert ">transfer, fine-tuned (ViT) (films)<" in svg
    assert svg.count(">few real images, from scratch (ViT)<") == 3  # its own family, masked autoencoders, transfer
    assert svg.count(">few real images, from scratch<") == 4
    assert svg.count(">all real images, balanced sampling<") == 5  # of the ConvNet alone


def test_images_are_distilled_whatever_network_learns_from_them() -> None:
    assert charts.is_distilled(made_up.compared("pruned-resnet18", 0.6, architecture="resnet18"))
    assert not charts.is_distilled(made_up.compared("random-resnet18", 0.6, architecture="resnet18"))
    assert not charts.is_distilled(made_up.compared("full-balanced", 0.6))


def test_confidence_that_is_hardly_ever_stated_has_no_dot() -> None:
    row = made_up.compared("random", 0.5)
    dots = row.detail.calibration
    seldom, often = (
        row.model_copy(update={"detail": row.detail.model_copy(update={"calibration": ((0.31, 1.0, share), *dots)})})
        for share in (0.009, 0.011)
    )
    assert calibration_curves([seldom]) == calibration_curves([row])
    assert calibration_curves([often]) != calibration_curves([row])


def test_bytes_are_not_compared_with_methods_that_need_images_of_their_own() -> None:
    svg = accuracy_for_bytes([row for row in made_up.COMPARED if row.protocol])
    assert ">pruned trajectory matching<" in svg
    assert "BYOL" not in svg


def test_odd_names_are_escaped() -> None:
    odd: list[Compared] = [made_up.compared("<script>", 0.5, None), made_up.compared("random (<b>)", 0.5)]
    for draw in (accuracy_for_bytes, roc_curves):
        assert not re.search("<script>|<b>", draw(odd))


def test_labels_move_apart_and_keep_their_order_and_the_frame() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        heights = draw.uniform(0.8, 1, 8).tolist()
        moved = charts._apart(heights, 0.05)
        assert np.argsort(moved).tolist() == np.argsort(heights).tolist()
        assert np.diff(sorted(moved)).min() > 0.05 - 1e-9
        assert max(moved) <= 1 + 1e-9
    assert charts._apart([0.2, 0.9, 0.5], 0.05) == [0.2, 0.9, 0.5]
    assert charts._apart([], 0.05) == []
