"""The command ``anomalib-spd benchmark``: measure a grid of backbones, detectors, categories and seeds."""

import os
import sys
from argparse import RawDescriptionHelpFormatter
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from anomalib_spd.benchmark import run as benchmark
from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.run import Progress
from anomalib_spd.benchmark.runners import Processes, Ray, Runner

PROGRAM = "anomalib-spd benchmark"

DESCRIPTION = """\
Measure a grid: backbones x detectors x categories x seeds, each cell a stock anomalib run.

Backbones that the grid says how to make, and that are not on the shelf, are fine-tuned first.
A cell is on record as soon as it ends. Started again, the same command goes on where it stopped. A cell that fails is on
record with its error, and the rest goes on; the exit status is then 1.

(anomalib's own command of this name is 'anomalib benchmark'.)"""


def run(args: list[str]) -> int:
    """Run ``anomalib-spd benchmark ...``; returns its exit status: 0, or 1 where a cell or the grid failed.

    Args:
        args: what follows ``anomalib-spd benchmark``.
    """
    options = _parser().parse_args(args)
    results, threads = options.results, options.threads or max(1, (os.cpu_count() or 1) // options.workers)
    try:
        grid = Grid(**{field.name: options[field.name] for field in fields(Grid)})
        with closing(_runner(options, threads)) as runner, _Display() as display:
            outcome = benchmark.run(
                grid,
                results,
                runner,
                accelerator=options.accelerator,
                threads=threads,
                report=display.show,
                tell=display.tell,
            )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    for result in outcome.failed:
        reason = result.record["error"]
        print(f"failed: {result.cell}: {reason['type']}: {' '.join(reason['message'].split())[:500]}", file=sys.stderr)
    print(
        f"{outcome.measured} cells measured, {outcome.kept} on record before, {len(outcome.failed)} failed: {results}"
    )
    print(f"Tables and pictures: anomalib-spd report {results}")
    return 1 if outcome.failed else 0


class _Help(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """The description as it is written, the options as jsonargparse shows them."""


def _parser() -> ArgumentParser:
    parser = ArgumentParser(PROGRAM, description=DESCRIPTION, formatter_class=_Help)
    parser.add_argument("--config", action="config", help="a YAML file, such as configs/benchmark/quick.yaml")
    # the keys of the file, and options that replace them
    parser.add_class_arguments(Grid)
    parser.add_argument("--results", type=Path, default=Path("results/benchmark"), help="folder of results")
    parser.add_argument("--runner", type=Literal["processes", "ray"], default="processes", help="where cells run")
    parser.add_argument("--workers", type=PositiveInt, default=1, help="how many processes at a time")
    parser.add_argument("--threads", type=PositiveInt | None, help="CPU threads of each; by default all are shared out")
    parser.add_argument("--accelerator", default="auto", help="as Lightning names it: auto, cpu, gpu")
    return parser


def _runner(options: Namespace, threads: int) -> Runner:
    if options.runner == "ray":
        return Ray(options.workers, threads, gpus=float(options.accelerator in {"gpu", "cuda"}))
    return Processes(options.workers)


class _Display:
    """A bar, and a line for every cell as it ends."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._bar = Bar(
            TextColumn("{task.completed:.0f} of {task.total:.0f} cells"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
        )
        self._task = self._bar.add_task("", total=1, left="", visible=False)
        self._shown = 0

    def __enter__(self) -> "_Display":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line)

    def show(self, progress: Progress) -> None:
        """Show how far the grid has come."""
        for result in progress.ended[self._shown :]:
            how = f"{result.record['seconds']['total']:.0f} s" if result.done else "failed"
            self._console.print(f"{result.cell}: {how}")
        self._shown = len(progress.ended)
        left = progress.seconds_left
        self._bar.update(
            self._task,
            visible=True,
            completed=self._shown,
            total=progress.total,
            left="no estimate yet" if left is None else f"about {max(1, round(left / 60))} min left" if left else "",
        )
