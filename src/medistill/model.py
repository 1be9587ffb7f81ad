"""A trained network as files that other programs run: safetensors, ONNX, and a card that says what it is.

The exported network is complete: it takes intensities from 0 (black) to 1 (white) and gives probabilities, so nobody
has to know how images were normalized.
"""

import importlib.util
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from medistill.errors import MissingPart, StorageError
from medistill.files import whole_folder
from medistill.package.documents import escaped
from medistill.receive import Received

WEIGHTS, ONNX, CARD = "model.safetensors", "model.onnx", "README.md"


class Classifier(nn.Module):
    """A network between normalization and softmax: intensities [n, c, h, w] to probabilities [n, classes]."""

    mean: Tensor
    std: Tensor

    def __init__(self, received: Received) -> None:
        super().__init__()
        self.network = received.network.module_at(received.params)
        transform = received.together.transform
        self.register_buffer("mean", torch.tensor(transform.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(transform.std).view(1, -1, 1, 1))

    def forward(self, intensities: Tensor) -> Tensor:
        """The probability of every class for each image."""
        logits: Tensor = self.network((intensities - self.mean) / self.std)
        return logits.softmax(1)


def check_saving(folder: Path) -> None:
    """Refuse before any training what `save_model` would refuse after it.

    Raises:
        StorageError: the folder exists.
        MissingPart: what writes ONNX is not installed.
    """
    if folder.exists():
        raise StorageError(f"{folder.name} exists and is not replaced. Choose another folder.")
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise MissingPart(f"Writing ONNX needs {', '.join(missing)}: pip install 'medistill[onnx]'")


def save_model(received: Received, folder: Path) -> None:
    """Write the first of the networks that were trained, whole or not at all.

    Args:
        received: what was trained.
        folder: to be made; it gets model.safetensors (named tensors), model.onnx and README.md.

    Raises:
        StorageError: the folder exists, or the disk refused.
        MissingPart: what writes ONNX is not installed.
    """
    check_saving(folder)
    model = Classifier(received).eval()
    about = {"classes": json.dumps(received.together.class_names), "input": "intensities from 0 to 1"}
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with whole_folder(folder) as partial:
        (partial / WEIGHTS).write_bytes(save(tensors, about))
        _write_onnx(model, received, partial / ONNX)
        (partial / CARD).write_text("".join(_card(received)), encoding="utf-8")


def _write_onnx(model: Classifier, received: Received, path: Path) -> None:
    """One file, for any number of images at a time."""
    example = torch.zeros(2, *received.together.images.shape[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own affairs
        program = torch.onnx.export(
            model,
            (example,),
            input_names=["intensities"],
            output_names=["probabilities"],
            dynamic_shapes={"intensities": {0: torch.export.Dim("images")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=False)


def _card(received: Received) -> Iterator[str]:
    """What somebody must know who finds the file."""
    together, row = received.together, received.row
    channels, height, width = together.images.shape[1:]
    yield "# A classifier trained on packages of images\n\nNot a medical device, and not for diagnosis.\n\n"
    yield f"Input: intensities from 0 (black) to 1 (white), float32 [n, {channels}, {height}, {width}]; normalization "
    yield "is inside. Output: a probability for each class, in this order:\n\n"
    yield from (f"{index}. {escaped(name)}\n" for index, name in enumerate(together.class_names))
    yield f"\nNetwork: {row.architecture}. Trained on "
    yield f"{received.own_images} images of the receiver's own and " if received.own_images else ""
    yield f"{len(together.images)} from the packages with SHA-256\n\n"
    yield from (f"- `{digest}`\n" for digest in received.digests)
    if received.measured_on:
        yield f"\nIts batch norm was measured on {received.measured_on} own images.\n"
    if together.training.class_offsets:
        verb = "contain" if received.plain_row else "leave out"
        yield f"\nIts logits {verb} the class offsets that these state, weighed by the share of their films.\n"
    interval, figure = row.balanced_accuracy_interval, row.balanced_accuracy
    yield f"\nMeasured on {row.split}: {figure.n} such networks reach {figure} % balanced accuracy (95 % interval "
    yield f"{100 * interval.low:.1f} to {100 * interval.high:.1f}), AUC {row.auc} %. This is the first of them, not "
    yield "the best. On images of another hospital it may do worse: measure before any use.\n"
