"""Where the cells of a grid run: in processes of this machine, or on a Ray cluster.

Both take a group of cells and hand back a future, which fails only when the process itself was lost.
"""

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from importlib import import_module
from typing import Any, Protocol

from anomalib_spd import backbones

#: what every process has to import
PRELOADED = "anomalib_spd.benchmark.preloaded"

Work = Callable[..., None]


class Runner(Protocol):
    """Runs groups of cells, each in a process of its own."""

    #: how many run at a time
    workers: int

    def submit(self, work: Work, *args: Any) -> "Future[None]":
        """Start a piece of work, or queue it."""

    def close(self) -> None:
        """Let go of what is held."""


class Processes:
    """Processes of this machine.

    Every group has a new one: what one leaves in memory, or its death, does not touch the next. Where the system can fork, they
    are copies of one that has imported what all need, some ten seconds' work, and done nothing else.

    Args:
        workers: how many run at a time.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self._context.set_forkserver_preload([PRELOADED])

    def submit(self, work: Work, *args: Any) -> "Future[None]":
        """Start a piece of work at once."""
        pool = ProcessPoolExecutor(1, self._context, initializer=_start, initargs=(dict(os.environ),))
        future = pool.submit(work, *args)
        pool.shutdown(wait=False)
        return future

    def close(self) -> None:
        """Nothing is held."""


class Ray:
    """A Ray cluster: the one that ``RAY_ADDRESS`` names, or one that is started on this machine.

    All machines must see the data and the folder of results under the same paths.

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
        # a lost process is on record as such: Ray would run its cells again, and lose it again
        self._options = {"num_cpus": threads, "num_gpus": gpus, "max_retries": 0, "max_calls": 1}

    def submit(self, work: Work, *args: Any) -> "Future[None]":
        """Queue a piece of work."""
        future: Future[None] = self._ray.remote(**self._options)(work).remote(*args).future()
        return future

    def close(self) -> None:
        """Disconnect, and stop a cluster that was started here."""
        self._ray.shutdown()


def _start(environment: dict[str, str]) -> None:
    """Begin as the process that started this one would, and end when it is killed: another start of the grid must not meet this.

    Args:
        environment: of that process; a copied process has what was set when its original began, and the shelf of then.
    """
    os.environ.clear()
    os.environ.update(environment)
    import_module(PRELOADED)  # where nothing was copied
    backbones.register()
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
