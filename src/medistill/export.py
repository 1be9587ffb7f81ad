"""A package's images in the forms that other tools read: MedMNIST's npz, a Hugging Face folder, plain PNG files.

Evidence stays in the package, as does exactness: pixels are cut to 8 bits here. What is written is whole
or absent, and nothing that exists is replaced.
"""

import csv
import io
import json
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medistill.errors import StorageError
from medistill.files import whole_folder, write_whole
from medistill.package import Package, documents
from medistill.package.documents import LEAKS
from medistill.package.previews import slug
from medistill.package.tensors import eight_bits
from medistill.recipe import Enlarging
from medistill.spectrum import enlarging_matrix

Form = Literal["medmnist", "hf", "png"]
FORMS: tuple[Form, ...] = get_args(Form)


def export(package: Package, form: Form, path: Path) -> int:
    """Write the films that networks learn from, and say how many there are.

    `medmnist` is one .npz with `train_images` (uint8, [n, height, width] or [n, height, width, 3]), `train_labels`
    ([n, 1]) and `class_names`. `hf` is a folder that `datasets.load_dataset` opens with its class names. `png` is a
    folder with a folder for each class. A soft label becomes its most probable class; `hf` and `medmnist` hold the
    probabilities too.

    Args:
        package: an opened package.
        form: one of `FORMS`.
        path: the file or folder to write; it must not exist.

    Raises:
        StorageError: it exists, or the disk refused.
    """
    if path.exists():
        raise StorageError(f"{path.name} exists and is not replaced. Choose another --out.")
    films, targets = _films(package)
    if form == "medmnist":
        _write_npz(path, films, targets, package.class_names, _about(package) + _besides(package))
    else:
        with whole_folder(path) as folder:
            _write_files(folder, form, films, targets, package)
    return len(films)


def _films(package: Package) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Every film as 8-bit [n, height, width, channels], and a probability of every class for each."""
    formation = package.manifest.training.formation or 1
    count, channels, height, width = package.images.shape
    parts = package.images.reshape(count, channels, formation, height // formation, formation, width // formation)
    small = parts.transpose(0, 2, 4, 1, 3, 5).reshape(-1, height // formation, width // formation)
    planes = small if formation == 1 else _enlarged(small, width, height, package.manifest.training.enlarging)
    films = planes.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return eight_bits(films), np.repeat(package.targets, formation**2, axis=0)


def _enlarged(planes: NDArray[np.float32], width: int, height: int, enlarging: Enlarging | None) -> NDArray[np.float32]:
    """The films of a formation as networks see them."""
    if enlarging == "cosine":
        sides = zip(planes.shape[1:], (height, width), strict=True)
        rows, columns = (enlarging_matrix(*each).astype(np.float32) for each in sides)
        enlarged: NDArray[np.float32] = np.einsum("hi,nij,wj->nhw", rows, planes, columns, optimize=True)
        return enlarged
    bilinear = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(plane).resize((width, height), bilinear)) for plane in planes])


def _about(package: Package) -> str:
    """What must be known wherever these images go."""
    made = package.manifest.provenance
    warning = f"{LEAKS} " if made.leaks_real_images else ""
    return f"{warning}{made.privacy} From the package with SHA-256 {package.digest}."


def _besides(package: Package) -> str:
    """What a card says too, for forms that have none."""
    lean = documents.lean(package.manifest.training)
    return lean and f" {lean}"


def _write_npz(
    path: Path, films: NDArray[np.uint8], targets: NDArray[np.float32], names: tuple[str, ...], about: str
) -> None:
    content = io.BytesIO()
    arrays = {
        "train_images": films[..., 0] if films.shape[-1] == 1 else films,
        "train_labels": targets.argmax(1)[:, None].astype(np.uint16 if len(names) > 256 else np.uint8),
        "train_probabilities": targets,
        "class_names": np.array(names),
        "about": np.array(about),
    }
    np.savez(content, **arrays)
    write_whole(path, content.getvalue())


def _write_files(
    folder: Path, form: Form, films: NDArray[np.uint8], targets: NDArray[np.float32], package: Package
) -> None:
    names, labels = package.class_names, targets.argmax(1)
    if form == "png":
        for index, (film, label) in enumerate(zip(films, labels, strict=True)):
            _save(folder / f"{label:03d}-{slug(names[label])}" / f"{index:05d}.png", film)
        (folder / "README.txt").write_text(_about(package) + _besides(package) + "\n", encoding="utf-8")
        return
    lines = []
    for index, (film, label) in enumerate(zip(films, labels, strict=True)):
        _save(folder / "train" / f"{index:05d}.png", film)
        lines.append([f"{index:05d}.png", names[label], json.dumps([round(float(p), 6) for p in targets[index]])])
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([["file_name", "label", "probabilities"], *lines])
    (folder / "train" / "metadata.csv").write_text(table.getvalue(), encoding="utf-8")
    as_films = package.manifest.training.model_copy(update={"formation": None, "enlarging": None})
    said = package.manifest.model_copy(update={"training": as_films})
    card = "".join(documents.card(said, len(films), "train/*"))
    (folder / documents.CARD).write_text(f"{card}\n{_about(package)}\n", encoding="utf-8")
    (folder / documents.AGREEMENT).write_text(documents.agreement(package.manifest.terms), encoding="utf-8")


def _save(path: Path, film: NDArray[np.uint8]) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(film[..., 0] if film.shape[-1] == 1 else film).save(path, "PNG")
