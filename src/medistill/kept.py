"""What took long to compute, kept under a name that hashes all that decides it.

So whoever asks for the same again, after an interruption or in another command, finds it; whoever asks for anything
else does not. A damaged file counts as none: what was in it is computed again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from medistill import __version__
from medistill.files import digest, storage_errors, write_whole


class Kept(NamedTuple):
    """Tensors by name, and what is said about them."""

    tensors: dict[str, Tensor]
    about: dict[str, str]


def told_apart(identity: Mapping[str, object]) -> str:
    """24 hexadecimal digits of all that decides a result, this version of the project and of torch among it.

    Args:
        identity: what JSON can say.
    """
    whole = {**identity, "made by": f"medistill {__version__} torch {torch.__version__}"}
    return digest(json.dumps(whole, sort_keys=True).encode())[:24]


def keep(path: Path, tensors: dict[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        StorageError: the disk refused.
    """
    write_whole(path, save(tensors, about))


def recall(path: Path) -> Kept | None:
    """What `keep` wrote; None where there is no file, or a damaged one.

    Raises:
        StorageError: the disk refused.
    """
    if not path.exists():
        return None
    try:
        with storage_errors(path), safe_open(path, framework="pt") as file:
            return Kept({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except SafetensorError:
        return None
