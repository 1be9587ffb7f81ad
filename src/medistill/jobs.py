"""Where independent jobs run: in this process or in several local ones.

Training one small network does not fill two cores, training two networks does: every job computes with one thread, so
its result does not depend on how many run beside it.
Jobs are plain functions of picklable arguments, so an engine for several machines can take the place of this one.
"""

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

import torch

from medistill.errors import StorageError

Tick = Callable[[int], None]


class Progress(Protocol):
    """Someone who is told how long work is and how far it has come: a bar in a terminal, or nobody."""

    def begin(self, task: str, total: int, done: int = 0) -> None:
        """A task of `total` units begins, of which `done` were finished by an earlier run."""

    def advance(self, count: int) -> None:
        """So many units more are done."""

    def say(self, message: str) -> None:
        """Something worth a line happened."""


class Silence:
    """A Progress that nobody watches."""

    def begin(self, task: str, total: int, done: int = 0) -> None:
        """Ignore it."""

    def advance(self, count: int) -> None:
        """Ignore it."""

    def say(self, message: str) -> None:
        """Ignore it."""


Job = Callable[[Any, Any, Tick], Any]

_PRELOADED = ("torch", "torch._inductor.compile_fx", "sklearn.metrics")

_shared: Any = None
_ticks: Any = None


def available_cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next allocation instead of returning it page by page.

    Networks allocate and free the same large buffers at every step; returning them costs about a third of the time.
    Does nothing where the C library is not glibc.
    """
    trim_threshold, mmap_max = -1, -4
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def run_jobs(
    job: Job, arguments: Sequence[Any], shared: Any, processes: int, on_tick: Tick
) -> Iterator[tuple[int, Any]]:
    """Run `job(argument, shared, tick)` for every argument and yield (index, result) as each is done.

    Args:
        job: a function at module level; it calls `tick(n)` after n units of its work.
        arguments: one a job.
        shared: what every job needs; sent once to each process.
        processes: how many jobs at once; 1 runs them here, one after another.
        on_tick: told of every unit of work done, for a progress bar.

    Raises:
        Whatever a job raises; jobs that have not begun are then dropped.
    """
    processes = min(processes, len(arguments))
    if processes <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for index, argument in enumerate(arguments):
                yield index, job(argument, shared, on_tick)
        finally:
            torch.set_num_threads(threads)
        return
    context = _context()
    ticks = context.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(ticks, on_tick), daemon=True)
    listener.start()
    # Sent as bytes: tensors would otherwise travel through shared memory, which containers keep small.
    pool = ProcessPoolExecutor(processes, context, _begin, (pickle.dumps(shared), ticks))
    try:
        pending = {pool.submit(_work, job, argument): index for index, argument in enumerate(arguments)}
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield pending.pop(future), future.result()
    except BrokenProcessPool as error:
        raise StorageError(
            "A worker process was ended by the system, most likely for want of memory. Lower machine.processes or the "
            "batch sizes, and run the same command again: what was finished is kept."
        ) from error
    except BaseException:
        for worker in list((pool._processes or {}).values()):
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        ticks.put(None)
        listener.join()


def _context() -> Any:
    """Processes forked from a clean one that has torch imported, or started anew where the system cannot fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The compiler takes seconds to import: workers get it ready made where this process needed it too.
    context.set_forkserver_preload([name for name in _PRELOADED if name in sys.modules])
    return context


def _begin(shared: bytes, ticks: Any) -> None:
    global _shared, _ticks
    _shared, _ticks = pickle.loads(shared), ticks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    keep_freed_memory()


def _end_with_parent() -> None:
    """Work whose result nobody awaits would only compete with the run that continues it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job, argument: Any) -> Any:
    return job(argument, _shared, _ticks.put)


def _listen(ticks: Any, on_tick: Tick) -> None:
    while (count := ticks.get()) is not None:
        on_tick(count)
