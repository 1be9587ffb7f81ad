import subprocess
import sys
from pathlib import Path

import pytest

from medistill.usage import measured, recorded_stages, timed


def test_a_stage_adds_up_its_time_and_keeps_its_highest_memory(tmp_path: Path) -> None:
    path = tmp_path / "stages.json"
    with timed(path, "teachers"):
        kept = bytearray(300_000_000)
        kept[::4096] = b"x" * len(kept[::4096])
    first = recorded_stages(path)["teachers"]
    del kept
    with timed(path, "teachers"):
        pass
    second = recorded_stages(path)["teachers"]
    assert second["seconds"] >= first["seconds"] >= 0
    assert second["peak_bytes"] >= first["peak_bytes"] > 0


def test_a_stage_that_is_interrupted_counts_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), timed(tmp_path / "stages.json", "distill"):
        raise KeyboardInterrupt
    assert recorded_stages(tmp_path / "stages.json")["distill"]["peak_bytes"] > 1e6


def test_measuring_calls_a_step_once_more_than_it_counts() -> None:
    calls = []
    seconds, memory = measured(lambda: calls.append(1), repeats=5)
    assert len(calls) == 6
    assert 0 <= seconds < 1
    assert memory > 1e6


def test_a_step_that_needs_more_memory_is_seen_to_hold_more() -> None:
    # In a process of its own: what other tests left in the heap would be reused and not seen.
    code = """
from medistill.usage import measured
def hold(size):
    block = bytearray(size)
    block[::4096] = b"x" * len(block[::4096])
small = measured(lambda: hold(1_000_000))[1]
large = measured(lambda: hold(400_000_000))[1]
assert large - small > 250_000_000, (small, large)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
