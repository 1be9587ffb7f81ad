"""What every benchmark measures alike: how long something takes, and in which precisions a device computes."""

import time
from collections.abc import Callable

import torch

from medistill.networks import can_compile
from medistill.recipe import Device, Precision
from medistill.usage import wait_for


def seconds_of(call: Callable[[], object], device: Device = "cpu") -> float:
    """Processor seconds of this process; on a GPU seconds on the wall until everything is finished."""
    if device == "cuda":
        return wall_seconds_of(call, device)
    started = time.process_time()
    call()
    return time.process_time() - started


def wall_seconds_of(call: Callable[[], object], device: Device) -> float:
    """Seconds on the wall until everything is finished."""
    wait_for(device)
    started = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - started


def precisions_of(device: Device) -> list[Precision]:
    """The precisions of a ConvNet's convolutions that a device computes in natively, float32 first."""
    if device == "cuda":
        return ["float32", "tensorfloat32", "bfloat16"]
    return ["float32", "bfloat16"] if torch.ops.mkldnn._is_mkldnn_bf16_supported() and can_compile() else ["float32"]
