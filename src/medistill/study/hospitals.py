"""Who has which images."""

from dataclasses import dataclass

import numpy as np

from medistill.errors import SourceError
from medistill.images import LabelledImages, cut

_SHARE_OF_C = 1 / 3
_SHARE_ELSEWHERE = 0.1  # of a class that is mostly seen at the other hospital


@dataclass(frozen=True)
class Hospitals:
    """The training images of three hospitals; no patient is in two of them, as far as groups tell patients apart.

    Attributes:
        a: of the large one, with all classes.
        c: of another one.
        b: of the small one: images of every class equally often, class by class.
    """

    a: LabelledImages
    c: LabelledImages
    b: LabelledImages

    def own(self, of_each: int) -> LabelledImages:
        """The first so many images a class of hospital B: a smaller set lies in every larger one."""
        classes = range(len(self.b.class_names))
        return self.b.take(np.concatenate([np.flatnonzero(self.b.labels == index)[:of_each] for index in classes]))


def share_out(images: LabelledImages, of_each: int, is_skewed: bool, seed: int) -> Hospitals:
    """Share training images out: `of_each` a class to B, and of what remains two thirds to A and one third to C.

    Skewed, A sees nine tenths of the first class, the third and so on, and a tenth of the others; C sees the rest.

    Args:
        images: all training images.
        of_each: how many images a class B gets.
        is_skewed: whether A and C see different classes.
        seed: of the draw; B's images are the same, skewed or not.

    Raises:
        SourceError: a class has too few images or patients for three hospitals.
    """
    b, rest = few_of_each(images, of_each, seed)
    share: float | list[float] = _SHARE_OF_C
    if is_skewed:
        classes = len(images.class_names)
        share = [1 - _SHARE_ELSEWHERE if index % 2 else _SHARE_ELSEWHERE for index in range(classes)]
    a, c = cut(rest, share, seed)
    return Hospitals(a, c, b)


def few_of_each(images: LabelledImages, of_each: int, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """`of_each` images of every class in a random order, one a patient where there are enough; and all other patients'.

    Raises:
        SourceError: a class has fewer.
    """
    draw = np.random.default_rng(seed)
    groups = images.groups if images.groups is not None else np.arange(len(images)).astype(str)
    chosen: list[int] = []
    for index, (name, count) in enumerate(zip(images.class_names, images.counts.tolist(), strict=True)):
        members = draw.permutation(np.flatnonzero(images.labels == index))
        if count < of_each:
            raise SourceError(
                f"Class {name} has {count} training image(s); the small hospital needs {of_each} of each. "
                "Lower --own, or add images to the class."
            )
        # The first image of every patient comes first, in the order of the draw.
        firsts = np.sort(np.unique(groups[members], return_index=True)[1])
        order = np.concatenate([members[firsts], np.delete(members, firsts)])
        chosen += order[:of_each].tolist()
    others = np.flatnonzero(~np.isin(groups, groups[chosen]))
    return images.take(np.array(chosen)), images.take(others)
