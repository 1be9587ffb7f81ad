import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from medistill.errors import StorageError
from medistill.jobs import Tick, available_cores, run_jobs


def draw(seed: int, shared: float, tick: Tick) -> np.ndarray:
    """A job whose last bits depend on the number of threads."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(200, 200, generator=generator)
    tick(1)
    product = (matrix @ matrix).sum(1) * shared
    tick(seed)
    return product.numpy()


def tell_much(argument: int, shared: None, tick: Tick) -> None:
    """More ticks than a pipe holds."""
    for _ in range(20_000):
        tick(1)


def threads(argument: int, shared: None, tick: Tick) -> int:
    return torch.get_num_threads()


def leave_a_trace(argument: int, shared: str, tick: Tick) -> None:
    """The first job fails; the others say that they ran."""
    if argument == 0:
        raise ArithmeticError("the first job fails")
    time.sleep(0.05)
    (Path(shared) / str(argument)).touch()


def ran(job, arguments, shared, processes):
    ticks: list[int] = []
    return dict(run_jobs(job, arguments, shared, processes, ticks.append)), ticks


def test_results_do_not_depend_on_the_number_of_processes():
    here, ticks_here = ran(draw, [5, 6, 7], 0.1, 1)
    there, ticks_there = ran(draw, [5, 6, 7], 0.1, 2)
    assert sorted(here) == sorted(there) == [0, 1, 2]
    for index in here:
        assert here[index].tobytes() == there[index].tobytes()
    assert sum(ticks_here) == sum(ticks_there) == 3 + 5 + 6 + 7


def test_every_tick_is_heard_by_the_time_the_jobs_are_over():
    heard: list[int] = []

    def hear_slowly(count: int) -> None:
        time.sleep(0.1)
        heard.append(count)

    list(run_jobs(draw, [5, 6], 0.1, 2, hear_slowly))
    assert sum(heard) == 2 + 5 + 6


@pytest.mark.parametrize("processes", [1, 2])
def test_a_terminal_that_is_gone_ends_the_jobs_instead_of_stopping_them_for_ever(processes):
    def refuse(count: int) -> None:
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        list(run_jobs(tell_much, [0, 1], None, processes, refuse))
    assert sorted(ran(draw, [5, 6], 0.1, 2)[0]) == [0, 1], "new workers take the place of those that were ended"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failing_job_is_heard_and_jobs_that_have_not_begun_are_dropped(tmp_path, processes):
    with pytest.raises(ArithmeticError, match="the first job fails"):
        ran(leave_a_trace, list(range(30)), str(tmp_path), processes)
    assert len(list(tmp_path.iterdir())) < 20


@pytest.mark.parametrize("processes", [1, 2])
def test_every_job_computes_with_one_thread(processes):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found, _ = ran(threads, [0, 1], None, processes)
        assert found == {0: 1, 1: 1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads_are_given_back_when_a_job_fails(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ArithmeticError):
            ran(leave_a_trace, [0], str(tmp_path), 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def where(argument: int, shared: float, tick: Tick) -> int:
    """A job that takes long enough for the other worker to take the next."""
    time.sleep(shared)
    return os.getpid()


def test_workers_are_kept_for_the_next_jobs_and_replaced_after_a_failure(tmp_path):
    first, second = (set(ran(where, [0, 1], 0.3, 2)[0].values()) for _ in range(2))
    assert len(first) == 2
    assert second <= first
    with pytest.raises(ArithmeticError):
        ran(leave_a_trace, [0, 1], str(tmp_path), 2)
    assert not set(ran(where, [0, 1], 0.3, 2)[0].values()) & first


def end_oneself(argument: int, shared: None, tick: Tick) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_the_system_ends_is_reported_and_replaced():
    with pytest.raises(StorageError, match="most likely for want of memory"):
        ran(end_oneself, [0, 1], None, 2)
    assert sorted(ran(threads, [0, 1], None, 2)[0]) == [0, 1]


def test_no_jobs_are_no_work():
    assert ran(draw, [], 0.1, 4) == ({}, [])


def test_at_least_one_core_is_available():
    assert available_cores() >= 1


def name_itself_and_wait(argument: int, shared: str, tick: Tick) -> None:
    (Path(shared) / str(os.getpid())).touch()
    time.sleep(60)


def is_running(process: int) -> bool:
    """Whether a process exists and still computes; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path, end):
    # A shell lets what it starts in the background ignore interrupts, tests and all.
    heed = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    jobs = "list(run_jobs(name_itself_and_wait, [0, 1], sys.argv[1], 2, print))"
    code = f"import sys; from test_jobs import *; {heed}; {jobs}"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parent,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while len(workers := [int(path.name) for path in tmp_path.iterdir()]) < 2:
            assert parent.poll() is None
            time.sleep(0.05)
        parent.send_signal(end)
        parent.wait(30)
        patience = time.monotonic() + 30
        while any(map(is_running, workers)):
            assert time.monotonic() < patience
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
