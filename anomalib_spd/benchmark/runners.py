"""Runners of a grid's cells: processes of this machine, or a Ray cluster.

Both take a group of cells and return a future, which fails only if the process itself was lost.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from importlib import import_module
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from anomalib_spd import backbones

#: module that every process imports
PRELOADED = "anomalib_spd.benchmark.preloaded"
#: bytes that a folder of sockets may have: macOS takes names of 103, and multiprocessing appends 32 (``/pymp-*/listener-*``)
LONGEST_FOLDER = 103 - 32

T = TypeVar("T")


class Runner(Executor):
    """Runs groups of cells, each in a process of its own."""

    #: how many run at a time
    workers: int


class Processes(Runner):
    """Processes of this machine, a new one for every group, so that memory and crashes do not affect the next group.

    Where the system can fork, they are copies of a process that has only imported what all need, which takes ten seconds.

    Args:
        workers: how many run at a time.

    Raises:
        OSError: the folder of temporary files has too long a name for the sockets by which processes talk.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        #: of the processes; those that are ended cannot remove their own
        self._temporary = tempfile.TemporaryDirectory(prefix="spd-", ignore_cleanup_errors=True)
        excess = len(os.fsencode(self._temporary.name)) - LONGEST_FOLDER
        if excess > 0:
            self._temporary.cleanup()
            raise OSError(
                f"the folder of temporary files, {tempfile.gettempdir()!r}, has a name {excess} bytes too long for the sockets"
                " in it; set TMPDIR to a folder with a shorter one, such as /tmp"
            )
        self._started: set[BaseProcess] = set()
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self._context.set_forkserver_preload([PRELOADED])

    def submit(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Start a piece of work at once."""
        before = set(multiprocessing.active_children())
        arguments = dict(os.environ), self._temporary.name
        pool = ProcessPoolExecutor(1, self._context, initializer=_start, initargs=arguments)
        future = pool.submit(work, *args, **kwargs)
        pool.shutdown(wait=False)
        running = set(multiprocessing.active_children())
        self._started = (self._started & running) | (running - before)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes that are running, and remove their temporary files."""
        for process in self._started:
            process.kill()  # Lightning would go on to the end of a batch; what is written is whole
        for process in self._started:
            process.join()
        self._temporary.cleanup()


class Ray(Runner):
    """A Ray cluster: the one that ``RAY_ADDRESS`` names, or a new one on this machine.

    All machines must have the data and the folder of results under the same paths.

    Args:
        workers: how many run at a time.
        threads: CPUs that each takes.
        gpus: GPUs that each takes.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """

    def __init__(self, workers: int, threads: int, gpus: float = 0) -> None:
        try:
            import ray  # optional
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "Ray is not installed, which --runner ray needs: pip install 'anomalib_spd[ray]'"
            ) from None
        self.workers = workers
        self._ray: Any = ray
        if not ray.is_initialized():
            local: dict[str, Any] = {"num_cpus": workers * threads, "include_dashboard": False}
            if "RAY_ADDRESS" in os.environ:
                local = {}
            ray.init(log_to_driver=False, logging_level=logging.WARNING, **local)
        # the loss of a process is recorded: Ray would run its cells again, and lose it again
        self._options = {"num_cpus": threads, "num_gpus": gpus, "max_retries": 0, "max_calls": 1}

    def submit(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue a piece of work."""
        future: Future[T] = self._ray.remote(**self._options)(work).remote(*args, **kwargs).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Disconnect, and stop a cluster that was started by this runner."""
        self._ray.shutdown()


def _start(environment: dict[str, str], temporary: str) -> None:
    """Take over the parent's environment, and end when the parent is killed: a new start of the grid must not meet this process.

    Args:
        environment: of the parent; a forked process has the environment, and the registry, of the time when its original began.
        temporary: folder of temporary files.
    """
    os.environ.clear()
    os.environ.update(environment)
    os.environ["TMPDIR"] = tempfile.tempdir = temporary
    # of Ctrl-C in a terminal the parent alone tells: it ends this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import_module(PRELOADED)  # if the process is no copy
    backbones.register()
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            shutil.rmtree(temporary, ignore_errors=True)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
