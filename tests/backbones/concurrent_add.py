"""One of two processes that add a backbone at once; a module of its own, as a spawned process imports it whole."""

from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any


def add_at_once(name: str, path: Path, recipe: str, barrier: Barrier, results: "Queue[tuple[str, str]]") -> None:
    """Add a backbone so that both processes have written their folders before either gives it its name."""

    from anomalib_spd.backbones import install

    write_folder = install.write_folder

    def write_when_both_do(*args: Any, **kwargs: Any) -> None:
        barrier.wait(120)
        write_folder(*args, **kwargs)
        barrier.wait(120)

    install.write_folder = write_when_both_do
    try:
        install.add(name, path, "test_efficientnet", recipe=recipe)
        results.put((recipe, ""))
    except ValueError as error:
        results.put((recipe, str(error)))
