"""Runs a grid: what is on record is kept, what fails is put on record, the rest goes on."""

import json
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import timm
import yaml
from filelock import FileLock, Timeout

from anomalib_spd.benchmark import cell as one_cell
from anomalib_spd.benchmark.features import SharedFeatures
from anomalib_spd.benchmark.grid import Config, Grid, build_data, build_model
from anomalib_spd.benchmark.output import output_to
from anomalib_spd.benchmark.results import RECORD, Cell, Result, read_record, write
from anomalib_spd.benchmark.runners import Runner
from anomalib_spd.benchmark.trainings import train

GRID = "grid.yaml"
LOG = "log.txt"


@dataclass(frozen=True)
class Outcome:
    """How a grid ended.

    Attributes:
        measured: cells that were measured in this run.
        kept: cells that were on record before.
        failed: cells that are on record with their error.
    """

    measured: int
    kept: int
    failed: list[Result]


def run(
    grid: Grid,
    results: Path,
    runner: Runner,
    *,
    accelerator: str = "auto",
    threads: int = 1,
    report: Callable[["Progress"], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Make the backbones that a grid says how to make, and measure every cell that is not on record.

    Args:
        grid: what is measured.
        results: folder of results, new or of an earlier run of this grid.
        runner: where.
        accelerator: as Lightning names it.
        threads: of torch on the CPU, for each worker.
        report: called whenever something may have changed, at least once a second.
        tell: takes a line whenever a training has ended.

    Returns:
        How it ended.

    Raises:
        ValueError: the grid is not well formed, cells on record were measured with other settings, or another process
            runs a grid in this folder.
    """
    grid.check()
    results.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(results / ".lock", timeout=0):
            train(grid, results, runner, accelerator=accelerator, threads=threads, tell=tell)
            return _run(grid, results, runner, accelerator, threads, report)
    except Timeout:
        raise ValueError(f"Another process runs a grid in {results}: wait for it, or give another folder") from None


def plans(grid: Grid, accelerator: str = "auto", threads: int = 1) -> list[list[one_cell.Plan]]:
    """What every cell is made of, by group. Backbones or data that cannot be read are left to fail in their cells.

    Args:
        grid: what is measured.
        accelerator: as Lightning names it.
        threads: of torch on the CPU.
    """
    names = {grid.backbone(cell.backbone, cell.category, cell.seed) for cell in grid.cells()}
    weights = {name: one_cell.weights(name) for name in sorted(names)}
    files: dict[str, str | None] = {}

    def plan(cell: Cell) -> one_cell.Plan:
        data = grid.data_config(cell)
        if (key := json.dumps(data, sort_keys=True)) not in files:
            files[key] = _files(data)
        sha256, architecture = weights[grid.backbone(cell.backbone, cell.category, cell.seed)]
        return one_cell.Plan(
            cell,
            grid.model_config(cell),
            data,
            grid.published(cell.category),
            weights_sha256=sha256,
            architecture=architecture,
            files_sha256=files[key],
            accelerator=accelerator,
            threads=threads,
        )

    return [[plan(cell) for cell in group] for group in grid.groups()]


class Progress:
    """How far a grid has come, and how long the rest will take.

    Args:
        groups: plans of the cells to measure.
        known: results of earlier runs, whose durations count too.
        workers: how many groups run at a time.
    """

    def __init__(self, groups: Sequence[Sequence[one_cell.Plan]], known: Iterable[Result], workers: int) -> None:
        self.waiting = [[plan.cell for plan in group] for group in groups]
        self.ended: list[Result] = []
        self.total = sum(map(len, self.waiting))
        self._workers = workers
        self._seconds: dict[str, list[float]] = defaultdict(list)
        for result in known:
            self._time(result)

    def end(self, result: Result) -> None:
        """Take note of a cell that has ended."""
        self.ended.append(result)
        for group in self.waiting:
            with suppress(ValueError):
                group.remove(result.cell)
        self._time(result)

    @property
    def seconds_left(self) -> float | None:
        """As long as cells of the same detector took on the average, in as many processes; unknown at first."""
        if not self._seconds:
            return None
        overall = mean(second for seconds in self._seconds.values() for second in seconds)
        groups = [
            sum(mean(self._seconds.get(cell.detector, [overall])) for cell in group) for group in self.waiting if group
        ]
        return max(sum(groups) / self._workers, *groups, 0.0) if groups else 0.0

    def _time(self, result: Result) -> None:
        if result.done:
            self._seconds[result.cell.detector].append(result.record["seconds"]["total"])


def measure(results: Path, group: Sequence[one_cell.Plan]) -> None:
    """Measure cells of one backbone and category, one after the other, and put each on record as it ends.

    Args:
        results: folder of results.
        group: their plans.
    """
    shared: SharedFeatures | None = None
    for place, plan in enumerate(group):
        folder = plan.cell.folder(results)
        folder.mkdir(parents=True, exist_ok=True)
        with output_to(folder / LOG):
            if place == 0:
                shared = _shared(group)
            try:
                record, scores = one_cell.run(plan, shared)
            except Exception as error:
                write(folder, plan.cell, one_cell.failure(plan, error), None)
            else:
                write(folder, plan.cell, record, scores)


def _run(
    grid: Grid,
    results: Path,
    runner: Runner,
    accelerator: str,
    threads: int,
    report: Callable[[Progress], None],
) -> Outcome:
    known, queue = _on_record(results, plans(grid, accelerator, threads))
    (results / GRID).write_text(yaml.safe_dump(grid.plain(), sort_keys=False))
    progress = Progress(queue, known, runner.workers)
    running: dict[Future[None], list[one_cell.Plan]] = {}
    while queue or running:
        while queue and len(running) < runner.workers:
            group = queue.pop(0)
            running[runner.submit(measure, results, group)] = group
        ready, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
        for future, group in list(running.items()):
            left = _take(results, group, progress)
            if future not in ready:
                continue
            del running[future]
            if left:
                # the cell that the process was at is lost with it, those behind it are not
                write(left[0].cell.folder(results), left[0].cell, one_cell.failure(left[0], _loss(future)), None)
                queue[:0] = [rest] if (rest := _take(results, left, progress)) else []
        report(progress)
    failed = [result for result in progress.ended if not result.done]
    return Outcome(len(progress.ended) - len(failed), len(known), failed)


def _on_record(
    results: Path, groups: Sequence[Sequence[one_cell.Plan]]
) -> tuple[list[Result], list[list[one_cell.Plan]]]:
    """What was measured before, and what is to be measured, by group. Failed cells are tried again."""
    known: list[Result] = []
    missing: list[list[one_cell.Plan]] = []
    for group in groups:
        left = []
        for plan in group:
            path = plan.cell.folder(results) / RECORD
            result = read_record(path) if path.is_file() else None
            if result is None or not result.done:
                left.append(plan)
            else:
                known.append(_same(result, plan))
        if left:
            missing.append(left)
    for plan in (plan for group in missing for plan in group):
        (plan.cell.folder(results) / RECORD).unlink(missing_ok=True)
    return known, missing


def _same(result: Result, plan: one_cell.Plan) -> Result:
    changed = [key for key, value in plan.origin.items() if key != "published" and result.record.get(key) != value]
    if changed:
        raise ValueError(
            f"{result.cell} is on record in {result.folder}, but was measured with another {', '.join(changed)}: give "
            "another folder of results, or remove that one to measure it again"
        )
    return result


def _take(results: Path, group: Sequence[one_cell.Plan], progress: Progress) -> list[one_cell.Plan]:
    """Note the cells of a group that have ended; returns the others."""
    left = []
    ended = {result.cell for result in progress.ended}
    for plan in group:
        path = plan.cell.folder(results) / RECORD
        if plan.cell in ended:
            continue
        if path.is_file():
            progress.end(read_record(path))
        else:
            left.append(plan)
    return left


def _loss(future: "Future[None]") -> BaseException:
    return future.exception() or RuntimeError("The process ended without putting the cell on record")


def _shared(group: Sequence[one_cell.Plan]) -> SharedFeatures | None:
    """Features at all layers that the detectors of a group read, where these are levels of timm's pyramid.

    Without them every detector computes its own, or fails by itself.
    """
    backbone = group[0].model["init_args"]["backbone"]
    layers: set[str] = set()
    for config in {plan.cell.detector: plan.model for plan in group}.values():
        with _told():
            layers.update(getattr(build_model(config).model.feature_extractor, "layers", ()))
    with _told():
        pyramid: Any = timm.create_model(backbone, features_only=True)
        if in_order := [layer for layer in pyramid.feature_info.module_name() if layer in layers]:
            return SharedFeatures(backbone, in_order)
    return None


@contextmanager
def _told() -> Iterator[None]:
    """An error is in the log, and no more."""
    try:
        yield
    except Exception:
        traceback.print_exc()


def _files(config: Config) -> str | None:
    with suppress(Exception):
        data = build_data(config)
        data.prepare_data()
        data.setup()
        return one_cell.files_sha256(data)
    return None
