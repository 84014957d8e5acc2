"""Where the cells of a grid run: in processes of this machine, or on a Ray cluster.

Both take a group of cells and hand back a future, which fails only when the process itself was lost.
"""

import logging
import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Protocol

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

    Every group has a new one: what one leaves in memory, or its death, does not touch the next.

    Args:
        workers: how many run at a time.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def submit(self, work: Work, *args: Any) -> "Future[None]":
        """Start a piece of work at once."""
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_start)
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


def _start() -> None:
    """End this process when the one that started it is killed: another start of the grid must not meet it."""
    # anomalib's import of its own parts
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(anomalib|timm)\.")
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
