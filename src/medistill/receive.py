"""What a receiver does with a package: train fresh networks on it alone, and judge them on images of their own.

The package says how: transform, network, rate, number of steps, augmentation. Nothing is chosen on the receiver's
images, so their figure can be laid beside the maker's.
"""

import numpy as np

from medistill.errors import SourceError
from medistill.evaluate import Bench, evaluate, synthetic_arm
from medistill.evidence import Row
from medistill.images import LabelledImages
from medistill.jobs import Progress
from medistill.package import Package
from medistill.recipe import DistillSettings, EvaluateSettings, Recipe
from medistill.synthetic import SyntheticSet


def train_on(
    package: Package,
    judged: LabelledImages,
    split: str,
    networks: int,
    seed: int,
    processes: int,
    progress: Progress,
) -> Row:
    """Train `networks` fresh networks on a package as it asks to be trained on, and judge each once.

    Args:
        package: a verified package.
        judged: the receiver's labelled images, in the package's shape; classes are matched by name.
        split: what to call them in the row.
        networks: how many networks.
        seed: of their first parameters and their augmentation, together with the package's digest.
        processes: how many are trained at once.
        progress: told of every image seen.

    Raises:
        SourceError: a class of the judged images is not in the package, or there are none.
        MatchingError: a network diverged.
    """
    if not len(judged):
        raise SourceError("Found no image to judge on; expected at least one. Name another split.")
    training, synthetic = package.manifest.training, SyntheticSet.from_package(package).unfolded()
    recipe = Recipe(
        # Other seeds than the maker's, whose networks a receiver would otherwise train again.
        seed=int(package.digest[:8], 16) + seed,
        network=training.network,
        augment=training.augment,
        distill=DistillSettings(ipc=int(np.ceil(len(synthetic) / len(package.class_names)))),
        evaluate=EvaluateSettings(
            networks=networks,
            rates=(training.rate,),
            steps=training.steps,
            batch_size=training.batch_size or len(synthetic),
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            schedule=training.schedule,
        ),
    )
    bench = Bench(recipe, synthetic.transform, None, None, processes)
    arm = synthetic_arm(recipe, synthetic)
    (row,) = evaluate(bench, [arm], judged.in_order_of(package.class_names), split, progress)
    return row
