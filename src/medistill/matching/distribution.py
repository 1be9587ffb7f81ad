"""Distribution matching: synthetic images whose features have the class's mean, in networks nobody has trained.

Source: Zhao and Bilen, WACV 2023 (arXiv 2110.04181), equation 4 and algorithm 1.
"""

from medistill.shapes import Features, RealFeatures, Scalar


def mean_distance(real: RealFeatures, synthetic: Features) -> Scalar:
    """The squared distance of two mean features; 0 where they agree.

    Args:
        real: features of real images of one class; no gradient flows into them.
        synthetic: features of synthetic images of the same class, as many or fewer.
    """
    return (real.detach().mean(0) - synthetic.mean(0)).square().sum()
