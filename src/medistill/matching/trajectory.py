"""How far a student is from where its teacher went.

The founding objective of trajectory matching: start a student at a teacher's parameters at some epoch, train it on the
synthetic images, and compare where it lands with the teacher some epochs later.

Source: Cazenavette et al., CVPR 2022 (arXiv 2203.11932), "Long-Range Parameter Matching".
"""

from medistill.errors import MatchingError
from medistill.shapes import Mask, Params, Scalar


def trajectory_distance(
    end: Params, start: Params, target: Params, kept: Mask | None = None, weights: Mask | None = None
) -> Scalar:
    """How much of the teacher's step the student still has to go.

    0 means the student arrived; 1 means it is as far away as where it began. The value has no unit, so early and late
    stretches of a trajectory weigh the same.

    Args:
        end: parameters the student reached after its inner loop.
        start: the teacher's parameters at `start_epoch`; the student began here.
        target: the teacher's parameters `expert_epochs` later.
        kept: 1 for every parameter that counts and 0 for every pruned one, above and below the fraction bar alike;
            None keeps all. Values under different masks are not comparable.
        weights: how much every parameter counts, above and below alike; None counts all the same.

    Raises:
        MatchingError: the teacher did not move between `start` and `target` in the kept parameters.
    """
    missing, step = end - target, start - target
    if kept is not None:
        missing, step = kept * missing, kept * step
    missing, step = missing.square(), step.square()
    if weights is not None:
        missing, step = weights * missing, weights * step
    length = step.sum()
    if not float(length.detach()) > 0:
        raise MatchingError(
            "The teacher did not move between start_epoch and its target in the parameters that are matched. Train "
            "teachers at a higher rate, raise distill.expert_epochs, or lower distill.threshold."
        )
    return missing.sum() / length
