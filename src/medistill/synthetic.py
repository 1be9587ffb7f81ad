"""The synthetic set: what distillation learns and a package carries.

Inside, images are normalized, as networks see them; in a package they are intensities, and one stated transform leads
from there to here. It is applied in `from_package` and nowhere else.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medistill.errors import RecipeError
from medistill.formation import fold, unfold
from medistill.images import LabelledImages
from medistill.package import Package, Transform, image_form, tensors
from medistill.package.manifest import MAX_FILM_VALUES, MAX_IMAGES, films_fit
from medistill.recipe import DistillSettings, Encoding, Enlarging
from medistill.shapes import Images

_FEWEST_FOR = {"class-mean": 8, "class-noise": 64}
_FILMS_AT_A_TIME = 1024


@dataclass(frozen=True)
class SyntheticSet:
    """Synthetic images with labels and the learning rate that was learned with them; a torch map-style Dataset.

    Attributes:
        images: normalized, [n, c, h, w].
        targets: a probability of every class for each image, [n, k].
        inner_rate: the student's learning rate.
        class_names: in the order of the columns of `targets`.
        transform: from intensities to normalized values.
        formation: how many films lie side by side, and below one another, in a stored image; see `unfolded`.
        enlarging: how such films are brought to the full side.
        offsets: what networks that learned from the set add to their logits, a number a class; none where it is empty.
    """

    images: Tensor
    targets: Tensor
    inner_rate: float
    class_names: tuple[str, ...]
    transform: Transform
    formation: int = 1
    enlarging: Enlarging = "bilinear"
    offsets: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]

    @property
    def has_soft_labels(self) -> bool:
        """Whether any image is of several classes."""
        return not bool(((self.targets == 0) | (self.targets == 1)).all())

    def unfolded(self) -> "SyntheticSet":
        """The set that networks learn from: every film an image of its own, with the label of the image it lay in."""
        targets = self.targets.repeat_interleave(self.formation**2, 0)
        films = unfold(self.images, self.formation, self.enlarging)
        return replace(self, images=films, targets=targets, formation=1)

    def intensities(self) -> NDArray[np.float32]:
        """The images as a package stores them: 0 is black, 1 is white, a little beyond either is possible."""
        mean, std = self._statistics()
        return (self.images * std + mean).numpy()

    def stored_as(self, encoding: Encoding) -> "SyntheticSet":
        """The set that a receiver has of it after a package stored its pixels so."""
        if encoding == "float32":
            return self
        intensities = self.intensities()
        form = image_form(intensities, self.labels(), len(self.class_names), encoding)
        mean, std = self._statistics()
        return replace(self, images=(torch.from_numpy(tensors.encoded(intensities, form)) - mean) / std)

    def labels(self) -> NDArray[Any]:
        """The labels as a package stores them: a class index each, or the probabilities where they are soft."""
        return self.targets.numpy() if self.has_soft_labels else self.targets.argmax(1).numpy()

    @classmethod
    def from_package(cls, package: Package) -> "SyntheticSet":
        """The set in a verified package, its transform applied once."""
        transform, training = package.manifest.transform, package.manifest.training
        targets = torch.from_numpy(package.targets)
        bare = cls(
            torch.empty(0),
            targets,
            package.inner_rate,
            package.class_names,
            transform,
            training.formation or 1,
            training.enlarging or "bilinear",
            training.class_offsets or (),
        )
        mean, std = bare._statistics()
        return replace(bare, images=(torch.tensor(package.images) - mean) / std)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.transform.mean, self.transform.std))
        return mean, std


def normalized(pixels: Tensor, transform: Transform) -> Images:
    """Images as networks see them: 8-bit values scaled to 0..1, mean taken off, divided by the standard deviation."""
    if pixels.dtype != torch.uint8:
        return pixels
    statistics = (transform.mean, transform.std)
    mean, std = (torch.tensor(values, device=pixels.device).view(1, -1, 1, 1) for values in statistics)
    images: Tensor = (pixels.float() / 255 - mean) / std
    return images


def starting_set(settings: DistillSettings, real: LabelledImages, transform: Transform, seed: int) -> SyntheticSet:
    """The set that distillation begins with: of each class as many images as the settings give it, in order of class,
    each of `formation` squared films.

    `noise` is Gaussian, with the mean and spread of the real pixels. `class-noise` is Gaussian with the mean and the
    covariance of all pixels of the class, so it has the class's texture; each of its n films has a weight of about
    1/sqrt(n) and a random sign. `class-mean` averages `images_per_mean` images of the class for each, plus noise of
    `start_noise` standard deviations: no single film is in it. `real` copies randomly chosen films, which stay
    recognizable in the result: such a set leaks, and is marked so wherever it goes.

    Args:
        settings: of distillation.
        real: the training images.
        transform: how they are normalized.
        seed: of the draws.

    Raises:
        RecipeError: a class has too few images for such a start, or images cannot be parted into so many films.
    """
    height, width = real.pixels.shape[2:]
    if height % settings.formation or width % settings.formation:
        raise RecipeError(
            f"distill.formation = {settings.formation} does not divide images of {width}x{height}. Choose a number "
            "that divides source.image_size."
        )
    of_each = settings.images_of_each(real.counts.tolist())
    counts = [images * settings.formation**2 for images in of_each]

    def films(indices: NDArray[np.int64]) -> Tensor:
        return normalized(torch.from_numpy(real.pixels[indices]), transform)

    refuse_small_classes(settings, real)
    draw = np.random.default_rng(seed)
    images = torch.from_numpy(draw.standard_normal((sum(counts), *real.pixels.shape[1:]))).float()
    for index, own in enumerate(torch.split(images, counts)):
        members = np.flatnonzero(real.labels == index)
        if settings.start == "real":
            own[:] = films(draw.choice(members, len(own), replace=False))
        elif settings.start == "class-noise":
            weights = _noise_weights(len(own), len(members), draw)
            parts = np.array_split(np.arange(len(members)), math.ceil(len(members) / _FILMS_AT_A_TIME))
            weighted = (torch.einsum("in,nchw->ichw", weights[:, part], films(members[part])) for part in parts)
            own[:] = torch.stack(list(weighted)).sum(0)
        elif settings.start == "class-mean":
            for number in range(len(own)):
                chosen = draw.choice(members, min(settings.images_per_mean, len(members)), replace=False)
                own[number] = films(chosen).mean(0) + settings.start_noise * own[number]
    targets = torch.eye(len(real.class_names)).repeat_interleave(torch.tensor(of_each), 0)
    formation, enlarging = settings.formation, settings.enlarging
    folded = fold(images, formation, enlarging)
    return SyntheticSet(folded, targets, settings.inner_rate, real.class_names, transform, formation, enlarging)


def _noise_weights(images: int, films: int, draw: np.random.Generator) -> Tensor:
    """For each image the weights of all films, which sum to 1: their mean, and random deviations from it."""
    deviations = draw.standard_normal((images, films))
    deviations -= deviations.mean(1, keepdims=True)
    return torch.from_numpy(1 / films + deviations / math.sqrt(films)).float()


def refuse_endless_sets(settings: DistillSettings, real: LabelledImages) -> None:
    """Refuse a recipe whose set no package could hold.

    Raises:
        RecipeError: it has too many films.
    """
    films = sum(settings.images_of_each(real.counts.tolist())) * settings.formation**2
    values = films * math.prod(real.pixels.shape[1:])
    if not films_fit(films, values, settings.formation):
        raise RecipeError(
            f"The set would have {films:,} films, {values:,} values together; a package holds at most {MAX_IMAGES:,} "
            f"films, in a formation {MAX_FILM_VALUES:,} values. Lower distill.ipc or distill.formation."
        )


def refuse_small_classes(settings: DistillSettings, real: LabelledImages) -> None:
    """Refuse a recipe that asks more images of a class than there are.

    Every class needs `ipc` images, for the random real ones that the set is judged beside, and as many as there are
    films where those are real ones; a class mean needs at least 8, and class noise 64, whose weights are then an eighth
    too: of fewer it would show too much of each.

    Raises:
        RecipeError: a class has fewer.
    """
    of_each = settings.images_of_each(real.counts.tolist())
    for name, count, images in zip(real.class_names, real.counts, of_each, strict=True):
        films = images * (settings.formation**2 if settings.start == "real" else 1)
        floor = _FEWEST_FOR.get(settings.start, 1)
        fewest = max(films, floor)
        if count < fewest:
            other = "'class-mean' or 'noise'" if count >= _FEWEST_FOR["class-mean"] else "'noise'"
            ways_out = [f"set distill.start = {other}"] if count < floor else []
            ways_out += ["lower distill.ipc"] if count < films else []
            raise RecipeError(
                f"Class {name} has {count} training image(s); {images} synthetic ones with distill.start = "
                f"{settings.start!r} need at least {fewest}. Add images, merge the class, or {' and '.join(ways_out)}."
            )


def trusting_logits(targets: Tensor) -> Tensor:
    """Logits whose softmax gives 0.95 to the class of each hard label: where learned labels begin."""
    confidence, classes = 0.95, targets.shape[1]
    return torch.where(targets > 0.5, math.log(confidence), math.log((1 - confidence) / (classes - 1)))
