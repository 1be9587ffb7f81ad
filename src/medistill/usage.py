"""What work takes: wall time, and memory with all the processes it started."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from medistill.files import read_json, write_json
from medistill.recipe import Device

_LOOK_EVERY_S = 0.5


def recorded_stages(path: Path) -> dict[str, dict[str, float]]:
    """What `timed` has recorded in a file: `seconds` and `peak_bytes` for each stage."""
    stages: dict[str, dict[str, float]] = read_json(path) if path.exists() else {}
    return stages


@contextmanager
def timed(path: Path, stage: str) -> Iterator[None]:
    """Record a stage in a JSON file: its wall time, summed over calls, and the most memory that any call held.

    A stage that is interrupted counts too; one that the system kills does not.
    """
    started = time.monotonic()
    try:
        with _watched_memory() as peak:
            yield
    finally:
        _record(path, stage, time.monotonic() - started, max(peak))


def _record(path: Path, stage: str, seconds: float, peak_bytes: int) -> None:
    stages = recorded_stages(path)
    before = stages.get(stage, {"seconds": 0.0, "peak_bytes": 0})
    stages[stage] = {
        "seconds": round(before["seconds"] + seconds, 1),
        "peak_bytes": max(int(before["peak_bytes"]), peak_bytes),
    }
    write_json(path, stages)


def measured(step: Callable[[], object], repeats: int = 3, device: Device = "cpu") -> tuple[float, int]:
    """The median wall time of a step in seconds, and the most memory in bytes that this process then held there, apart
    from what it shares with others.

    A first call is not counted in the time: libraries prepare themselves in it.
    """
    _forget_peak(device)
    step()
    times = []
    for _ in range(repeats):
        wait_for(device)
        started = time.perf_counter()
        step()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return sorted(times)[repeats // 2], _peak_bytes(device)


def own_bytes(device: Device = "cpu") -> int:
    """The memory that this process holds and shares with no other; on a GPU what its tensors take."""
    if device == "cuda":
        return torch.cuda.memory_allocated()
    return int(psutil.Process().memory_full_info().uss)


def shared_bytes(device: Device = "cpu") -> int:
    """The memory that this process shares with others, libraries above all; on a GPU none."""
    if device == "cuda":
        return 0
    memory = psutil.Process().memory_full_info()
    return int(memory.rss - memory.uss)


@contextmanager
def _watched_memory() -> Iterator[list[int]]:
    """Look twice a second at this process and those it started; pages that they share count once."""
    seen = [_held_bytes()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_S):
            seen[0] = max(seen[0], _held_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _held_bytes() -> int:
    this, total = psutil.Process(), 0
    for process in (this, *this.children(recursive=True)):
        try:
            memory = process.memory_full_info()
        except psutil.Error:
            continue  # it ended meanwhile
        total += getattr(memory, "pss", memory.uss)
    return total


def wait_for(device: Device) -> None:
    """Let a GPU finish what it was given: calls return before their work is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def _forget_peak(device: Device) -> None:
    """Let the system count this process's peak anew, where it can (Linux, GPUs)."""
    if device == "cuda":
        return torch.cuda.reset_peak_memory_stats()
    counter = Path("/proc/self/clear_refs")
    with contextlib.suppress(OSError):
        counter.write_text("5")


def _peak_bytes(device: Device) -> int:
    """The most memory this process held since `_forget_peak`; what it holds now where the system does not say."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return own_bytes() + _bytes_in_status("VmHWM") - _bytes_in_status("VmRSS")


def _bytes_in_status(name: str) -> int:
    """A figure that Linux keeps of this process; 0 elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
