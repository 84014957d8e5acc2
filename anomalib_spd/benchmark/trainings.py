"""Makes the backbones that a grid says how to make, where the shelf does not have them."""

import shlex
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

import torch

from anomalib_spd import backbones
from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.output import output_to
from anomalib_spd.benchmark.runners import Runner

FOLDER = "finetune"


def train(
    grid: Grid,
    results: Path,
    runner: Runner,
    *,
    accelerator: str = "auto",
    threads: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Fine-tune the backbones of a grid that are missing; those that were interrupted go on.

    What fails is told, and left to fail in its cells.

    Args:
        grid: what is measured.
        results: folder of results; trainings are in ``finetune`` there, each with a log.
        runner: where.
        accelerator: as Lightning names it.
        threads: of torch on the CPU, for each worker.
        tell: takes a line whenever a training has ended.

    Raises:
        ValueError: a backbone on the shelf has the name of one that is to be made otherwise.
    """
    queue = []
    for name, args in grid.trainings().items():
        if name not in backbones.available():
            queue.append((name, [*args, f"--trainer.accelerator={accelerator}", f"--folder={results / FOLDER}"]))
        elif not backbones.find(name).provenance.command.startswith(command(args)):
            raise ValueError(
                f"{name!r} is on the shelf, but was not made as the grid says: remove it (anomalib-spd backbones remove "
                f"{name}), or give the grid another name"
            )
    total, running = len(queue), dict[Future[None], str]()
    ended = 0
    while queue or running:
        while queue and len(running) < runner.workers:
            name, args = queue.pop(0)
            log = results / FOLDER / f"{name}.txt"
            log.parent.mkdir(parents=True, exist_ok=True)
            running[runner.submit(finetune, args, log, threads)] = name
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            name, ended = running.pop(future), ended + 1
            log = results / FOLDER / f"{name}.txt"
            tell(f"{ended} of {total} trainings: {name}" + (f" failed, see {log}" if future.exception() else ""))
    backbones.register()  # they were put on the shelf by other processes


def command(args: list[str]) -> str:
    """Return a training's command line, as the shelf has it on record."""
    return shlex.join(["anomalib-spd", "finetune", *args])


def finetune(args: list[str], log: Path, threads: int) -> None:
    """Run one training in this process.

    Args:
        args: what follows ``anomalib-spd finetune``.
        log: file that takes what is printed.
        threads: of torch on the CPU.

    Raises:
        RuntimeError: where it failed; the log says why.
    """
    from anomalib_spd.cli.finetune import run

    torch.set_num_threads(threads)
    with output_to(log):
        status = run(args)
    if status:
        raise RuntimeError(f"anomalib-spd finetune ended with status {status}")
