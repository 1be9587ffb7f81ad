"""The pages of a comparison: comparison.html and comparison.md for others, holder.html for the holder of the images.

The last never leaves the holder: it shows, under each synthetic image, the training image that comes nearest.
"""

import numpy as np
from numpy.typing import NDArray

from medistill.comparison.contenders import sealed_as
from medistill.comparison.question import OBJECTIVES, with_budget
from medistill.evidence import Comparison
from medistill.files import write_whole
from medistill.images import LabelledImages
from medistill.package import Package, open_package
from medistill.package.tensors import Images
from medistill.pipeline import Run
from medistill.report.comparison import render_comparison
from medistill.report.markdown import comparison_table
from medistill.report.sheet import contact_sheet, package_sheet
from medistill.synthetic import SyntheticSet


def write_pages(opened: Run, comparison: Comparison) -> None:
    """Write the pages, with the images of the largest budget and the first seed.

    Args:
        opened: the run whose comparison it is, with packages where its objectives left them.
        comparison: the table.

    Raises:
        StorageError: the disk refused.
    """
    recipe = with_budget(opened.recipe, max(comparison.ipcs)).model_copy(update={"seed": comparison.seeds[0]})
    shown = opened.with_recipe(recipe)
    asked = [name for name in OBJECTIVES if name in {row.name for row in comparison.rows}]
    # Where a cell came from elsewhere its package did not.
    sealed = {name: path for name in asked if (path := sealed_as(shown, name)).exists()}
    packages = {name: open_package(path, allow_unsigned=True) for name, path in sealed.items()}
    sheets: dict[str, bytes] = {name: package_sheet(package, name) for name, package in packages.items()}
    nearest: dict[str, bytes] = {
        name: _beside_nearest(name, package, opened.splits.train) for name, package in packages.items()
    }
    may_show_patients = any(package.manifest.provenance.leaks_real_images for package in packages.values())
    for name, real in (("comparison.html", {}), ("holder.html", nearest)):
        page = render_comparison(comparison, sheets, real, may_show_patients, opened.recipe.to_toml())
        write_whole(opened.out / name, page.encode())
    write_whole(opened.out / "comparison.md", comparison_table(comparison).encode())


def _beside_nearest(name: str, package: Package, real: LabelledImages) -> bytes:
    """A sheet with two rows for each class: its synthetic images, and under each the nearest real one."""
    films = SyntheticSet.from_package(package).unfolded()
    images, labels = films.intensities(), films.targets.argmax(1).numpy()
    near = real.pixels[nearest_of_class(images, labels, real)] / np.float32(255)
    names = tuple(row for name in package.class_names for row in (f"{name}, synthetic", f"{name}, nearest real"))
    return contact_sheet(
        np.concatenate([images, near]),
        np.concatenate([2 * labels, 2 * labels + 1]),
        names,
        caption=f"{name}: synthetic images and real ones",
    )


def nearest_of_class(images: Images, labels: NDArray[np.int64], real: LabelledImages) -> NDArray[np.int64]:
    """For each image the index of the real one of its class at the least mean squared difference of intensities.

    Args:
        images: intensities [n, c, h, w].
        labels: a class index each.
        real: images of the same shape and classes.
    """
    found = np.empty(len(images), dtype=np.int64)
    for index in np.unique(labels):
        members = np.flatnonzero(real.labels == index)
        flat = real.pixels[members].reshape(len(members), -1) / np.float32(255)
        for place in np.flatnonzero(labels == index):
            found[place] = members[((flat - images[place].reshape(1, -1)) ** 2).sum(axis=1).argmin()]
    return found
