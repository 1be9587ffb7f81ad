"""Functions of tensors compiled for this machine, where it can."""

import functools
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from medistill.recipe import Device


def can_compile(device: Device = "cpu") -> bool:
    """Whether this machine has what compiling needs: a C compiler, Python's headers, and on a GPU Triton."""
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return False
    has_compiler = shutil.which(os.environ.get("CXX", "g++")) is not None
    return has_compiler and (Path(sysconfig.get_path("include")) / "Python.h").exists()


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function without side effects, fused into few passes over memory, once for all shapes.

    A compiler must be there (`can_compile`). It takes seconds when first called; what is compiled is kept in the user's
    cache folder. The last bits differ from what the function gives as it stands.
    """
    # torch would keep what it compiles in a shared temporary folder, where others could put code for it to load.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medistill" / "compiled"
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    # One network has several sizes, odd and even; double precision and other thread counts make variants of their own.
    torch._dynamo.config.recompile_limit = 64
    options: dict[str, Any] = {
        "cpp.dynamic_threads": True,
        # What takes few operations is computed again wherever it is read, never written to memory in between.
        "realize_reads_threshold": 1000,
        "realize_opcount_threshold": 1000,
    }
    fused: Any = torch.compile(function, fullgraph=True, dynamic=True, options=options)
    return fused  # type: ignore[no-any-return]
