"""What a study will cost, before it begins: a few steps of every kind, times how many there will be."""

from dataclasses import replace

from medistill.pipeline import Run
from medistill.plan import Plan, Trainings, choosing_an_encoding, distillation, on_few, side_by_side, teaching
from medistill.study.inquiry import Inquiry
from medistill.study.scenes import with_one_rate

_MAKERS = 2


def forecast(opened: Run, inquiry: Inquiry) -> Plan:
    """Predict time, memory and disk of a whole study, all seeds and scenarios; takes about a minute.

    Two hospitals together have about as many images as the source, so together they train teachers for as long as one
    holder of all would; shifted scenarios use the packages of the natural one.
    """
    recipe, settings, train = opened.recipe, opened.recipe.evaluate, opened.splits.train
    makings = inquiry.seeds * sum(scenario != "shifted" for scenario in inquiry.scenarios)
    repetitions = inquiry.seeds * len(inquiry.scenarios) * settings.networks
    stages = []
    if recipe.distill.follows_teachers:
        stages.append(teaching(opened).times(makings))
    stages.append(distillation(opened).times(_MAKERS * makings))
    classes, films = len(train.class_names), recipe.distill.ipc * recipe.distill.formation**2
    counts = [classes * own for own in inquiry.own]
    for packages in (1, 2):
        counts += [classes * (packages * films + own) for own in (0, *inquiry.own)]
    own = recipe.network.architecture
    small = [on_few(recipe, own, count, repetitions) for count in counts]
    small += choosing_an_encoding(opened.with_recipe(with_one_rate(recipe)), _MAKERS * makings)
    pooled = [Trainings(own, len(train), settings.full_epochs, repetitions)]
    federated = [Trainings(own, len(train), max(inquiry.rounds, default=0), repetitions)]
    federation = side_by_side(opened, "federation", federated)
    stages += [
        side_by_side(opened, "small hospital", small),
        side_by_side(opened, "pooled", pooled),
        replace(federation, disk_bytes=len(inquiry.rounds) * federation.disk_bytes),  # kept as they were after each
    ]
    return Plan(tuple(stages))
