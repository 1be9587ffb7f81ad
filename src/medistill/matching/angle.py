"""The shape of a trajectory: the angles between a beginning, a point on the way and an end.

Where a student lands says nothing of how it got there. Three points make a triangle; a student whose triangle has the
teacher's angles has turned where the teacher turned, however far it went.

Source: Dong et al., MICCAI 2025 (arXiv 2509.24177), "shape-wise potential"; the angles and their smooth L1 distance are
those of relational distillation, Park et al., CVPR 2019 (arXiv 1904.05068), equations 7 and 8. Our formula is read from
both papers and the authors' released code.
"""

import torch
from torch import Tensor
from torch.nn import functional

from medistill.shapes import Params, Scalar

Points = tuple[Params, Params, Params]


def angle_distance(student: Points, teacher: Points) -> Scalar:
    """The mean smooth L1 distance of all 27 cosines of the angle at point i between points j and k; no unit.

    Of the 27 only six can differ, each corner's angle twice: the others have a side without length or one side twice.

    Args:
        student: its parameters at the start, midway and at the end.
        teacher: the same of the teacher.
    """
    return 2 / 27 * functional.smooth_l1_loss(_cosines(student), _cosines(teacher), reduction="sum")


def _cosines(points: Points) -> Tensor:
    """The cosine of each corner's angle; 0 where a side has no length."""
    start, midway, end = points
    corners = ((start, midway, end), (midway, end, start), (end, start, midway))
    return torch.stack([functional.cosine_similarity(one - at, other - at, dim=0) for at, one, other in corners])
