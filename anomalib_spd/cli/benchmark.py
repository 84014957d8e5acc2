"""The command ``anomalib-spd benchmark``: measure a grid of backbones, detectors, categories and seeds."""

import inspect
import math
import os
import signal
import sys
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from pydoc import locate
from typing import Literal

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from anomalib_spd.benchmark import run as benchmark
from anomalib_spd.benchmark.checks import look_at
from anomalib_spd.benchmark.grid import DATA_KEYS, Grid, GridError
from anomalib_spd.benchmark.outlook import outlook
from anomalib_spd.benchmark.results import RUNS, Result, read
from anomalib_spd.benchmark.run import Outcome
from anomalib_spd.benchmark.runners import Processes, Ray, Runner
from anomalib_spd.cli.termination import Terminated
from anomalib_spd.config_files import merge_config_files
from anomalib_spd.files import one_line

PROGRAM = "anomalib-spd benchmark"

DESCRIPTION = """\
Measure a grid: backbones x detectors x categories x seeds, each cell a stock anomalib run.

Backbones that the grid says how to make, and that are not in the registry, are fine-tuned first.
A cell is recorded as soon as it ends; the same command, given again, resumes. The error of a cell that fails is recorded,
and the other cells go on; the exit status is then 1. runs.csv in the folder of results has a row for every cell.

Names, layers, data and folders are checked before the first cell. --dry-run shows what there is to do, and stops there.
Images are those of --data.root. A data set that is missing is downloaded into a folder that exists, if an empty one.

Several --config files are merged, later ones win. In a file, ${oc.env:NAME} is an environment variable.

(anomalib's own command of this name is 'anomalib benchmark'.)"""


def run(args: list[str]) -> int:
    """Run ``anomalib-spd benchmark ...``; return its exit status: 0, or 1 where a cell or the grid failed.

    Args:
        args: what follows ``anomalib-spd benchmark``.
    """
    options = parse(args)
    results, threads = options.results, options.threads or default_threads(options.workers)
    try:
        if options.dry_run:
            return _dry_run(grid_of(options), results, options.workers)
        outcome = _run(options, results, threads)
    except KeyboardInterrupt:
        return _stopped(signal.SIGINT, results)
    except Terminated:
        return _stopped(signal.SIGTERM, results)
    except GridError as error:
        for line in error.lines:
            print("error:", line, file=sys.stderr)
        return 1
    for result in outcome.failed:
        failure = result.record["error"]
        print(one_line(f"failed: {result.cell}: {failure['type']}: {failure['message']}"), file=sys.stderr)
    print(
        f"{outcome.measured} cells measured, {outcome.known} recorded before, {len(outcome.failed)} failed: {results}"
    )
    print(f"Table of all cells: {results / RUNS}")
    print(f"Tables and pictures: anomalib-spd report {results}")
    return 1 if outcome.failed else 0


def _dry_run(grid: Grid, results: Path, workers: int) -> int:
    """Print what a grid would do, and what is wrong with it; return the exit status."""
    errors = look_at(grid, results)
    try:
        plan = outlook(grid, results)
    except GridError as error:
        raise GridError(list(dict.fromkeys([*errors, *error.lines]))) from None
    states = [(plan.done, "on record"), (plan.failed, "failed, again"), (plan.new, "to measure")]
    state = {cell: text for cells, text in states for cell in cells}
    for cell in grid.cells():
        print(f"{state[cell]:<13}  {cell}")
    left = len(plan.failed) + len(plan.new)
    print(f"{len(state)} cells: {len(plan.done)} on record, {left} to measure, in {results}")
    if plan.trainings:
        print(f"{len(plan.trainings)} backbones are fine-tuned first: {', '.join(plan.trainings)}")
    if left and plan.seconds is None:
        print("No estimate of the time: not every detector has a cell on record.")
    elif left and plan.seconds:
        without = ", without the fine-tuning" if plan.trainings else ""
        took = timedelta(seconds=round(plan.seconds / workers))
        print(f"About {took} (hours:minutes:seconds) by the cells on record, {workers} at a time{without}.")
    if errors:
        raise GridError(errors)
    return 0


def _stopped(by: signal.Signals, results: Path) -> int:
    recorded = sum(1 for _ in read(results))
    print(
        f"stopped by {by.name}: {recorded} cells are recorded in {results}; the same command goes on", file=sys.stderr
    )
    return 128 + by


def _run(options: Namespace, results: Path, threads: int) -> Outcome:
    grid = grid_of(options)
    with _runner(options, threads) as runner, _Display() as display:
        return benchmark.run(
            grid,
            results,
            runner,
            accelerator=options.accelerator,
            threads=threads,
            report=display.show,
            log=display.log,
        )


def default_threads(workers: int) -> int:
    """Return the CPU threads of a worker: ``OMP_NUM_THREADS``, or an equal share of the CPUs that this process may use.

    Args:
        workers: how many run at a time.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if given.isdecimal() and int(given):
        return int(given)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cpus or 1) // workers)


def grid_of(options: Namespace) -> Grid:
    """Return the grid of parsed options."""
    values = {field.name: options[field.name] for field in fields(Grid)}
    data = values["data"]
    # short, as in other commands: --data.root is an argument of the data module, which any other key is not
    takes = inspect.signature(made).parameters if inspect.isclass(made := locate(str(data.get("class_path")))) else {}
    short = {key: each for key, each in data.items() if key in takes and key not in DATA_KEYS}
    if short:
        others = {key: each for key, each in data.items() if key not in short}
        values["data"] = {**others, "init_args": {**data.get("init_args", {}), **short}}
    return Grid(**values)


class _Help(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Prints the description as it is written, and options as jsonargparse does."""


def parse(args: list[str]) -> Namespace:
    """Parse ``anomalib-spd benchmark ...``: configuration files, and the options that replace their values.

    Args:
        args: what follows ``anomalib-spd benchmark``.

    Raises:
        SystemExit: with 2 for wrong usage, which is one line; with 0 after ``--help``.
    """
    # else jsonargparse prints all options before what is wrong with one
    parser = ArgumentParser(PROGRAM, description=DESCRIPTION, formatter_class=_Help, exit_on_error=False)
    parser.add_argument("--config", action="config", help="a YAML file, or the name of a recipe: benchmark/quick")
    parser.add_class_arguments(Grid)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show the cells, those on record, what is missing and about how long it takes; nothing is measured or written",
    )
    parser.add_argument("--results", type=Path, default=Path("results/benchmark"), help="folder of results")
    parser.add_argument("--runner", type=Literal["processes", "ray"], default="processes", help="where cells run")
    parser.add_argument("--workers", type=PositiveInt, default=1, help="how many processes at a time")
    parser.add_argument("--threads", type=PositiveInt | None, help="CPU threads of each; by default an equal share")
    parser.add_argument("--accelerator", default="auto", help="as Lightning names it: auto, cpu, gpu")
    try:
        return parser.parse_args(merge_config_files(args))
    except ArgumentError as error:
        print(f"error: {one_line(error)} ('{PROGRAM} --help all' has all options)", file=sys.stderr)
        raise SystemExit(2) from None


def _runner(options: Namespace, threads: int) -> Runner:
    if options.runner == "ray":
        return Ray(options.workers, threads, gpus=float(options.accelerator in {"gpu", "cuda"}))
    return Processes(options.workers)


class _Display:
    """Shows a progress bar, and a line for every cell that ends."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.completed:.0f} of {task.total:.0f} cells"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            speed_estimate_period=math.inf,  # by default cells of the last half minute count
        )
        self._task = self._bar.add_task("", total=1, visible=False)
        self._printed = 0

    def __enter__(self) -> "_Display":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def log(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line)

    def show(self, ended: Sequence[Result], total: int) -> None:
        """Show the progress of the grid."""
        for result in ended[self._printed :]:
            how = f"{result.record['seconds']['total']:.0f} s" if result.done else "failed"
            self._console.print(f"{result.cell}: {how}")
        self._printed = len(ended)
        self._bar.update(self._task, visible=True, completed=self._printed, total=total)
