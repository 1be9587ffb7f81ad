"""Parameter pruning: leaving out of the match what is hard to match.

The founding work prunes a parameter when its similarity between student and teacher is below a threshold. It does not
say which similarity, so three readings stand here side by side; the first is the default. All lie in [0, 1].

    unsigned      min(|a/b|, |b/a|)                 how alike the two values are in size
    signed        the same, but 0 where the signs differ
    displacement  the signed ratio of the two steps taken from the common start

Beside them stand two controls and a rival. `shuffled` and `shuffled-displacement` keep as many parameters as `unsigned`
and `displacement` do, but any: what they lose against those is what the similarity knows. `easy_parameters` lets a
parameter in once it has come close, by a measure that grows with the outer steps, and never puts it out again.

A mask carries no gradient: it says what counts in this outer step, not what should.

Source: the founding work's method (poster, "parameter pruning"), threshold 0.1; the formulas are our reading. The
rival: Dong et al., MICCAI 2025 (arXiv 2509.24177), "easy-to-complex matching".
"""

from collections.abc import Callable

import torch
from torch import Tensor

from medistill.errors import MatchingError
from medistill.recipe import Similarity
from medistill.shapes import Mask, Params


def kept_parameters(
    end: Params, start: Params, target: Params, threshold: float, similarity: Similarity, seed: int = 0
) -> Mask:
    """1 for every parameter at least as similar as `threshold`, 0 for every pruned one.

    Threshold 0 keeps all of them, which is plain trajectory matching; threshold 1 keeps only equal ones.

    Args:
        end: parameters the student reached.
        start: where student and teacher began.
        target: where the teacher went.
        threshold: similarity below which (strictly) a parameter is pruned, 0 to 1.
        similarity: which reading; two zeros are alike (similarity 1).
        seed: of the order into which a control brings the mask.

    Raises:
        MatchingError: nothing is kept.
    """
    with torch.no_grad():
        alike = _SIMILARITIES[_SHUFFLED.get(similarity, similarity)](end, start, target)
        kept = (alike >= threshold).to(end.dtype)
        if similarity in _SHUFFLED:
            kept = kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed)).to(kept.device)]
    if not bool(kept.any()):
        raise MatchingError(
            f"No parameter reaches a similarity of {threshold:g} ({similarity}). Lower distill.threshold; "
            "0 prunes nothing."
        )
    return kept


def easy_parameters(end: Params, target: Params, admitted: Mask, threshold: float) -> Mask:
    """1 for every parameter that was admitted before or whose squared error is now below `threshold`, 0 for the others.

    Args:
        end: parameters the student reached.
        target: where the teacher went.
        admitted: the result of the last outer step; all 0 in the first.
        threshold: squared difference below which (strictly) a parameter is admitted; it has the unit of one.

    Raises:
        MatchingError: nothing is admitted yet.
    """
    with torch.no_grad():
        found = torch.maximum(admitted, ((end - target).square() < threshold).to(admitted.dtype))
    if not bool(found.any()):
        raise MatchingError(
            f"No parameter has come within a squared error of {threshold:g} yet. Raise distill.easy_error."
        )
    return found


def _signed_ratio(a: Tensor, b: Tensor) -> Tensor:
    """The smaller over the larger magnitude, 0 where the signs differ, 1 where both are 0."""
    return torch.where(a * b < 0, 0.0, _unsigned_ratio(a, b))


def _unsigned_ratio(a: Tensor, b: Tensor) -> Tensor:
    small, large = torch.minimum(a.abs(), b.abs()), torch.maximum(a.abs(), b.abs())
    return torch.where(large == 0, 1.0, small / large)


_SHUFFLED: dict[Similarity, Similarity] = {"shuffled": "unsigned", "shuffled-displacement": "displacement"}
_SIMILARITIES: dict[Similarity, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "unsigned": lambda end, start, target: _unsigned_ratio(end, target),
    "signed": lambda end, start, target: _signed_ratio(end, target),
    "displacement": lambda end, start, target: _signed_ratio(end - start, target - start),
}
