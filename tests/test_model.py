from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors import safe_open

import toys
from medistill.errors import MissingPart, StorageError
from medistill.jobs import Silence
from medistill.model import Classifier, check_saving, save_model
from medistill.package import pack
from medistill.receive import Received, train_on
from medistill.recipe import NetworkSettings
from medistill.train import predict
from samples import contents


@pytest.fixture(scope="module", params=["convnet", "resnet18"])
def received(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Received:
    path = tmp_path_factory.mktemp("made") / "set.medistill"
    films = judged()
    network = NetworkSettings(width=8, depth=2)
    training = contents()["training"].model_copy(update={"network": network, "class_offsets": (0.5, -0.5)})
    held = contents(
        name="toy",
        images=np.divide(films.pixels, 255, dtype=np.float32),
        labels=films.labels,
        class_names=films.class_names,
        transform=toys.TRANSFORM,
        training=training,
    )
    package = pack(path, **held)
    return train_on([package], judged(), "ours", 1, 0, 1, Silence(), own=judged(), architecture=request.param)


def judged() -> toys.LabelledImages:
    films = toys.films((20, 20), seed=8)
    return toys.LabelledImages(films.pixels, films.labels, ("0", "1"))


def test_every_form_of_the_model_says_what_the_network_says(received: Received, tmp_path: Path) -> None:
    save_model(received, tmp_path / "model")
    expected = predict(received.network, received.params, judged(), received.together.transform)
    intensities = np.divide(judged().pixels, 255, dtype=np.float32)
    onnx = onnxruntime.InferenceSession(tmp_path / "model/model.onnx")
    assert [each.name for each in onnx.get_inputs()] == ["intensities"]
    np.testing.assert_allclose(onnx.run(None, {"intensities": intensities})[0], expected, atol=1e-4)

    loaded = Classifier(received)
    with safe_open(tmp_path / "model/model.safetensors", framework="pt") as file:
        assert file.metadata()["classes"] == '["0", "1"]'
        loaded.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not iterable)
    with torch.no_grad():
        np.testing.assert_allclose(loaded(torch.from_numpy(intensities)), expected, atol=1e-5)


def test_the_card_says_what_it_saw_and_what_it_is_not_for(received: Received, tmp_path: Path) -> None:
    save_model(received, tmp_path / "model")
    card = (tmp_path / "model/README.md").read_text()
    assert "not for diagnosis" in card
    assert "Trained on 40 images of the receiver's own and" in card
    assert "Its logits contain the class offsets" in card
    assert received.digests[0] in card
    assert "0. 0\n1. 1\n" in card


def test_nothing_is_replaced_and_what_is_missing_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match="exists and is not replaced"):
        check_saving(tmp_path)
    check_saving(tmp_path / "new")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPart, match=r"medistill\[onnx\]"):
        check_saving(tmp_path / "new")
