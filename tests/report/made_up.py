"""Evidence and a log with invented numbers."""

from typing import Any

from medistill.evidence import (
    Compared,
    Comparison,
    Detail,
    Difference,
    Figure,
    Interval,
    Intervals,
    Pretrained,
    Row,
    Utility,
)
from medistill.package import Provenance

CLASSES = ("normal", "pneumonia")


def row(name: str, mean: float, images: int = 40, **changes: Any) -> Row:
    figure = Figure(mean=mean, sd=0.012, n=5)
    fields: dict[str, Any] = {
        "name": name,
        "architecture": "convnet",
        "split": "test",
        "images": images,
        "labels": "soft",
        "rate": 0.01,
        "accuracy": figure,
        "balanced_accuracy": figure,
        "auc": figure,
        "macro_f1": figure,
        "calibration_error": figure,
        "balanced_accuracy_interval": Interval(low=mean - 0.03, high=mean + 0.03),
        "sensitivity": dict.fromkeys(CLASSES, figure),
        "specificity": dict.fromkeys(CLASSES, figure),
    }
    return Row(**fields | changes)


ROWS = (
    row("majority", 0.5, 2000, architecture="none", rate=None, balanced_accuracy=Figure(mean=0.5, sd=0, n=1)),
    row("random", 0.541),
    row("distilled", 0.683),
    row("full-natural", 0.761, 2000),
    row("full-balanced", 0.77, 2000),
    row("distilled-resnet18", 0.52, architecture="resnet18"),
    row("full", 0.77, 2000, same_as="full-balanced"),
)


def utility(*rows: Row, **changes: Any) -> Utility:
    fields: dict[str, Any] = {
        "split": "test",
        "judged_images": 400,
        "selection": "validation",
        "test_reads": 1,
        "data_fingerprint": "a" * 64,
        "recipe_digest": "b" * 64,
        "software": {"medistill": "0.1.0"},
        "notes": ("a note <b>in bold</b>",),
        "rows": rows,
    }
    return Utility(**fields | changes)


def compared(name: str, mean: float, ipc: int | None = 20, **changes: Any) -> Compared:
    fields: dict[str, Any] = {
        "harmonic_mean": Figure(mean=mean, sd=0.012, n=5),
        "protocol": "budget" if ipc else "full",
        "ipc": ipc,
        "sent_bytes": 2_000 * (ipc or 1000),
        "train_seconds": 3.2,
        "above": Difference(low=mean - 0.62, high=mean - 0.58) if ipc and name != "random" else None,
        "detail": Detail(
            confusion=((0.8, 0.2), (0.1, 0.9)),
            roc=tuple(round(min(1, 0.5 + index / 100), 2) for index in range(101)),
            calibration=((0.55, 0.5, 0.4), (0.9, 0.8, 0.6)),
        ),
        "intervals": Intervals(
            accuracy=Interval(low=0.11, high=0.12),
            harmonic_mean=Interval(low=0.21, high=0.22),
            sensitivity=dict.fromkeys(CLASSES, Interval(low=0.31, high=0.32)),
            specificity=dict.fromkeys(CLASSES, Interval(low=0.41, high=0.42)),
            auc=Interval(low=0.51, high=0.52) if ipc else None,
        ),
    }
    images = 2 * ipc if ipc else 2000
    return Compared(**row(name, mean, images).model_dump() | fields | changes)


COMPARED = (
    compared("majority", 0.5, None, protocol=None, sent_bytes=0, train_seconds=0),
    compared("random", 0.6),
    compared("byol", 0.63),
    compared("byol", 0.72, protocol="unlabelled"),
    compared("byol-linear", 0.64, protocol="unlabelled"),
    compared("transfer (gratings drawn here)", 0.58),
    compared("dm", 0.66),
    compared("pruned", 0.7),
    compared("full-balanced", 0.85, None),
)


def comparison(*rows: Compared, **changes: Any) -> Comparison:
    fields: dict[str, Any] = {
        "title": "a table",
        "split": "test",
        "judged_images": 400,
        "classes": CLASSES,
        "ipcs": tuple(sorted({row.ipc for row in rows if row.ipc} or {20})),
        "seeds": (0, 1),
        "selection": "validation",
        "test_reads": 1,
        "data_fingerprint": "a" * 64,
        "recipe_digest": "b" * 64,
        "software": {"medistill": "0.1.0"},
        "machines": ("torch 2.13.0, AVX512, float32",),
        "against": "random",
        "notes": ("a note <b>in bold</b>",),
        "original_bytes": {"source file, all splits": 37_000_000},
        "rows": rows,
        "pretrained": (
            Pretrained(
                method="byol",
                architecture="convnet",
                protocol="unlabelled",
                images=2000,
                seed=0,
                steps=300,
                first_loss=1.9,
                last_loss=0.3,
                spread=0.72,
            ),
        ),
    }
    return Comparison(**fields | changes)


def provenance(**changes: Any) -> Provenance:
    fields: dict[str, Any] = {
        "method": "pruned trajectory matching",
        "start": "class-mean",
        "leaks_real_images": False,
        "data_fingerprint": "a" * 64,
        "recipe_digest": "b" * 64,
        "software": {"medistill": "0.1.0"},
    }
    return Provenance(**fields | changes)


def log(steps: int = 60) -> list[dict[str, Any]]:
    start = {"step": 0, "teacher": None, "start_epoch": None, "value": None, "kept": None, "inner_rate": 0.02}
    return [start | {"validation": 0.5}] + [
        {
            "step": step,
            "teacher": step % 3,
            "start_epoch": step % 2,
            "value": None if step == 7 else 1 / step,
            "kept": 0.9,
            "inner_rate": 0.02 + step / 1000,
            "validation": 0.5 + step / 200 if step % 20 == 0 else None,
        }
        for step in range(1, steps + 1)
    ]
