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

_pool: "_Pool | None" = None
_ticks: Any = None  # in a worker, where it tells of its progress


def available_cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next allocation instead of returning it page by page.

    Networks allocate and free the same large buffers at every step; returning them costs about a third of the time.
    Does nothing where the C library is not glibc.
    """
    trim_threshold, mmap_max = -1, -4
    if (mallopt := _of_glibc("mallopt")) is not None:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def _give_back_memory() -> None:
    """Return what `keep_freed_memory` kept, for instance before idling."""
    if (malloc_trim := _of_glibc("malloc_trim")) is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None


def run_jobs(
    job: Job, arguments: Sequence[Any], shared: Any, processes: int, on_tick: Tick
) -> Iterator[tuple[int, Any]]:
    """Run `job(argument, shared, tick)` for every argument and yield (index, result) as each is done.

    Args:
        job: a function at module level; it calls `tick(n)` after n units of its work.
        arguments: one a job.
        shared: what every job needs; sent along with each.
        processes: how many jobs at once; 1 runs them here, one after another.
        on_tick: told of every unit of work done, for a progress bar.

    Raises:
        Whatever a job or `on_tick` raises; jobs that have not begun are then dropped.
    """
    if min(processes, len(arguments)) <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for index, argument in enumerate(arguments):
                yield index, job(argument, shared, on_tick)
        finally:
            torch.set_num_threads(threads)
        return
    # Sent as bytes: tensors would otherwise travel through shared memory, which containers keep small.
    sent = pickle.dumps(shared)
    pool = _pool_of(processes)
    failures: list[BaseException] = []
    listener = threading.Thread(target=_listen, args=(pool.ticks, on_tick, failures), daemon=True)
    listener.start()
    try:
        pending = {pool.executor.submit(_work, job, argument, sent): index for index, argument in enumerate(arguments)}
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            if failures:
                raise failures[0]
            for future in done:
                yield pending.pop(future), future.result()
    except BaseException as error:
        # The listener may wait for ever for what a worker was about to say when it was ended: it is left, and silent.
        failures.append(error)
        _end_pool()
        if isinstance(error, BrokenProcessPool):
            raise StorageError(
                "A worker process was ended by the system, most likely for want of memory. Lower machine.processes or "
                "the batch sizes, and run the same command again: what was finished is kept. (A script of your own "
                'must work under `if __name__ == "__main__":`, or its workers run the script once more and end.)'
            ) from error
        raise
    pool.ticks.put(None)
    listener.join()
    if failures:
        raise failures[0]


class _Pool:
    """Worker processes, and the queue by which they tell of their progress.

    They live as long as the writing end of a pipe is open here. So they end when this process does, however it ends;
    and at an interrupt even those end that had not yet been entered in any list of processes.
    """

    def __init__(self, processes: int) -> None:
        context = _context()
        self.processes, self.ticks = processes, context.SimpleQueue()
        lifeline, self._lifeline = context.Pipe(duplex=False)
        self.executor = ProcessPoolExecutor(processes, context, _begin, (self.ticks, lifeline))

    def end(self) -> None:
        """End all workers at once, whatever they are doing."""
        self._lifeline.close()
        self.executor.shutdown(wait=True, cancel_futures=True)


def _pool_of(processes: int) -> _Pool:
    """The pool of the last call if it has as many processes: they take seconds to load what they compute with."""
    global _pool
    if _pool is None or _pool.processes != processes:
        _end_pool()
        _pool = _Pool(processes)
    return _pool


def _end_pool() -> None:
    global _pool
    if _pool is not None:
        _pool.end()
    _pool = None


def _context() -> Any:
    """Processes forked from a clean one that has torch imported, or started anew where they cannot be forked: not on
    every system, and not where a GPU's driver might be loaded, which does not survive it."""
    if "forkserver" not in multiprocessing.get_all_start_methods() or torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # The compiler takes seconds to import: workers get it ready made where this process needed it too.
    context.set_forkserver_preload([name for name in _PRELOADED if name in sys.modules])
    return context


def _begin(ticks: Any, lifeline: Any) -> None:
    global _ticks
    _ticks = ticks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_without, args=(lifeline,), daemon=True).start()
    torch.set_num_threads(1)
    keep_freed_memory()


def _end_without(lifeline: Any) -> None:
    """Work whose result nobody awaits would only compete with the run that continues it."""
    lifeline.poll(None)  # nothing is ever sent: this returns when the other end is closed
    os._exit(1)


def _work(job: Job, argument: Any, sent: bytes) -> Any:
    try:
        return job(argument, pickle.loads(sent), _ticks.put)
    finally:
        _give_back_memory()


def _listen(ticks: Any, on_tick: Tick, failures: list[BaseException]) -> None:
    """Pass on what workers tell, also when nobody can hear it any more: a full queue would stop them for ever."""
    while (count := ticks.get()) is not None:
        if not failures:
            try:
                on_tick(count)
            except BaseException as error:  # a terminal that is gone ends a program with SystemExit
                failures.append(error)
