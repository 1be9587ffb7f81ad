"""The contents that the tests of the package seal; golden.bin holds the tiny ones."""

from typing import Any

import numpy as np

from medistill.evidence import Figure, Interval, Row, Utility
from medistill.package import Provenance, Training, Transform
from medistill.recipe import AugmentSettings, NetworkSettings, Recipe


def contents(**changes: Any) -> dict[str, Any]:
    """Everything `pack` needs for two images of 8 x 8, with changes by name."""
    ramp = np.linspace(-0.25, 1.25, 128, dtype=np.float32).reshape(2, 1, 8, 8)
    return {
        "name": "tiny",
        "images": ramp,
        "labels": np.array([0, 1]),
        "inner_rate": 0.02,
        "class_names": ("normal", "pneumonia"),
        "transform": Transform(mean=(0.5,), std=(0.25,)),
        "training": Training(
            network=NetworkSettings(width=8, depth=1),
            steps=3,
            rate=0.01,
            momentum=0.9,
            weight_decay=0.0005,
            schedule="constant",
            augment=AugmentSettings(),
            inner_rate_learned=True,
        ),
        "provenance": Provenance(
            method="pruned trajectory matching",
            start="class-mean",
            leaks_real_images=False,
            data_fingerprint="a" * 64,
            recipe_digest="b" * 64,
            software={"medistill": "0.1.0"},
        ),
        "recipe_toml": 'name = "tiny"\n',
    } | changes


def evidence(**changes: Any) -> Utility:
    """A row of made-up figures."""
    figure = Figure(mean=0.75, sd=0.0, n=1)
    figures = dict.fromkeys(("accuracy", "balanced_accuracy", "auc", "macro_f1", "calibration_error"), figure)
    row = Row(
        name="distilled",
        architecture="convnet",
        split="test",
        images=2,
        labels="hard",
        rate=0.01,
        balanced_accuracy_interval=Interval(low=0.7, high=0.8),
        sensitivity={"normal": figure},
        specificity={"normal": figure},
        **figures,
    )
    fields = {
        "split": "test",
        "judged_images": 10,
        "selection": "validation",
        "test_reads": 1,
        "data_fingerprint": "a" * 64,
        "recipe_digest": "b" * 64,
        "software": {"medistill": "0.1.0"},
        "notes": ("made up",),
        "rows": (row,),
    }
    return Utility(**(fields | changes))


def full() -> dict[str, Any]:
    """Soft labels, color, and every optional part."""
    images = np.random.default_rng(0).random((3, 3, 5, 7), dtype=np.float32)
    labels = np.array([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]], dtype=np.float32)
    return contents(
        images=images,
        labels=labels,
        class_names=("normal", 'pneumonie, "virale" é'),
        transform=Transform(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        class_prior={"normal": 0.25, 'pneumonie, "virale" é': 0.75},
        recipe_toml=Recipe().to_toml(),
        utility=evidence(),
    )
