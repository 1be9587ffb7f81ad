"""Expert trajectories on disk.

One safetensors file a teacher, read by memory-mapping, so that an outer step touches two rows and not the whole file.
The first snapshot is float32; later ones are stored as float16 differences from it, which halves the size and corrupts
a teacher's step by about a thousandth. (Plain float16 snapshots corrupt it by several percent, bfloat16 by more.) The
differences are multiplied by a power of two that fills the range of float16, so this holds however far a teacher moves.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from medistill.errors import MatchingError, StorageError
from medistill.files import storage_errors, write_whole
from medistill.shapes import Params

Storage = Literal["differences", "full"]


@dataclass(frozen=True)
class Buffer:
    """The trajectories of `teachers` teachers, each with snapshots at epochs 0 to `last_epoch`."""

    folder: Path
    teachers: int
    last_epoch: int

    def path(self, teacher: int) -> Path:
        """Where a teacher's trajectory lies."""
        return self.folder / f"teacher-{teacher:04d}.safetensors"

    def missing(self) -> list[int]:
        """The teachers that are not stored yet."""
        return [teacher for teacher in range(self.teachers) if not self.path(teacher).exists()]

    def snapshot(self, teacher: int, epoch: int) -> Params:
        """A teacher's parameters after `epoch` epochs, in float32.

        Raises:
            StorageError: the file is absent, damaged, or holds another number of epochs.
        """
        path = self.path(teacher)
        try:
            with storage_errors(path), safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["about"])
                stored = int(about["last_epoch"])
                if stored != self.last_epoch:
                    raise StorageError(
                        f"{path.name} holds epochs 0 to {stored}; expected 0 to {self.last_epoch}. Delete it and run "
                        "the same command again."
                    )
                if "snapshots" in file.keys():  # noqa: SIM118 (safe_open is not iterable)
                    return _row(file, "snapshots", epoch)
                first: Tensor = file.get_tensor("first")
                if epoch == 0:
                    return first
                return first + _row(file, "differences", epoch - 1).float() / float(about.get("scale", 1.0))
        except (SafetensorError, ValueError, LookupError, TypeError) as error:
            raise StorageError(f"{path.name} is damaged. Delete it and run the same command again.") from error


def write_trajectory(path: Path, snapshots: Iterable[Params], storage: Storage, about: dict[str, str]) -> None:
    """Store one teacher's snapshots, whole or not at all.

    Args:
        path: the file.
        snapshots: parameters at epochs 0, 1, ... in order.
        storage: `differences` (float32 first, float16 differences from it) or `full` (float32).
        about: what made them; goes into the file's metadata.

    Raises:
        MatchingError: two neighboring snapshots are alike, which means that nothing was learned or that copies of one
            live network were recorded.
        StorageError: the disk refused.
    """
    stacked = torch.stack(list(snapshots))
    still = (stacked[1:] == stacked[:-1]).all(1).nonzero()
    if len(still):
        epoch = int(still[0])
        raise MatchingError(
            f"{path.stem}: epochs {epoch} and {epoch + 1} hold the same parameters. Train teachers at a higher rate."
        )
    said: dict[str, str | int | float] = {**about, "last_epoch": len(stacked) - 1}
    if storage == "full":
        tensors = {"snapshots": stacked}
    else:
        differences = stacked[1:] - stacked[0]
        scale = _filling_scale(float(differences.abs().max()))
        tensors = {"first": stacked[0].clone(), "differences": (differences * scale).half()}
        said["scale"] = scale
    # safetensors writes metadata keys in random order, so one key holds them all
    write_whole(path, save(tensors, {"about": json.dumps(said, sort_keys=True)}))


def _filling_scale(largest: float) -> float:
    """The power of two that brings `largest` to between 2^14 and 2^15, where float16 ends at 65504."""
    return 2.0 ** min(15 - math.frexp(largest)[1], 120)


def _row(file: safe_open, name: str, index: int) -> Tensor:
    rows = file.get_slice(name)  # type: ignore[no-untyped-call]
    row: Tensor = rows[index : index + 1][0]
    return row
