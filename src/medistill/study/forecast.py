"""What a study will cost, before it begins: a few steps of every kind, times how many there will be."""

import math

from medistill.pipeline import Run
from medistill.plan import Plan, Stage, distillation, held_together, teaching, training_step
from medistill.study.inquiry import Inquiry
from medistill.train import even_batch

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
    small = 0.0
    for batch in {even_batch(count, settings.batch_size) for count in counts}:
        step, _ = training_step(opened, recipe.network.architecture, batch)
        batches = [
            math.ceil(count / settings.batch_size)
            for count in counts
            if even_batch(count, settings.batch_size) == batch
        ]
        small += step * sum(each * math.ceil(settings.steps / each) for each in batches)
    step, memory = training_step(opened, recipe.network.architecture, settings.batch_size)
    epoch = step * math.ceil(len(train) / settings.batch_size)
    held = held_together(opened.processes, memory, recipe.machine.place)
    for name, seconds in (
        ("small hospital", small),
        ("pooled", settings.full_epochs * epoch),
        ("federation", max(inquiry.rounds, default=0) * epoch),
    ):
        stages.append(Stage(name, repetitions * seconds / opened.processes, held, 0))
    return Plan(tuple(stages))
