"""How long something takes, told the same way in every benchmark."""

import time
from collections.abc import Callable

import torch

from medistill.recipe import Device


def seconds_of(call: Callable[[], object], device: Device = "cpu") -> float:
    """Processor seconds of this process; on a GPU seconds on the wall until everything is finished."""
    if device == "cpu":
        started = time.process_time()
        call()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - started
