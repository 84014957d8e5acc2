"""Runs a grid: recorded cells are not measured again, errors are recorded, and the other cells go on."""

import json
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import timm
import yaml
from anomalib.models.components import AnomalibModule
from filelock import FileLock, Timeout

from anomalib_spd.benchmark import cell as one_cell
from anomalib_spd.benchmark.build import check
from anomalib_spd.benchmark.checks import check_grid
from anomalib_spd.benchmark.features import SharedFeatures
from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.output import output_to
from anomalib_spd.benchmark.results import RECORD, Cell, Result, on_record, write, write_runs
from anomalib_spd.benchmark.runners import Runner
from anomalib_spd.benchmark.trainings import train
from anomalib_spd.files import write_text

GRID = "grid.yaml"
LOG = "log.txt"
#: keys of a record that tell one measurement from another
IDENTITY = ("backbone", "files_sha256", "config")
#: of keys of a record, in messages
NAMES = {"files_sha256": "content of images or masks"}

Group = Sequence[one_cell.Plan]
Report = Callable[[Sequence[Result], int], None]


@dataclass(frozen=True)
class Outcome:
    """How a grid ended.

    Attributes:
        measured: number of cells that were measured in this run.
        known: number of cells that were recorded before.
        failed: records of the cells that failed.
    """

    measured: int
    known: int
    failed: list[Result]


def run(
    grid: Grid,
    results: Path,
    runner: Runner,
    *,
    accelerator: str = "auto",
    threads: int = 1,
    report: Report = lambda ended, total: None,
    log: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Make the backbones that a grid says how to make, measure every cell that is not recorded, and write ``runs.csv``.

    Args:
        grid: what is measured.
        results: folder of results, new or of an earlier run of this grid.
        runner: where.
        accelerator: as Lightning names it.
        threads: of torch on the CPU, for each worker.
        report: takes the cells that have ended and the number of all, at least once a second.
        log: takes a line whenever a training has ended.

    Raises:
        GridError: the grid is not well formed, or what it reads is not there.
        ValueError: recorded cells were measured with other settings, or another process runs a grid in this folder.
    """
    files = check_grid(grid, results)
    results.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(results / ".lock", timeout=0):
            train(grid, results, runner, accelerator=accelerator, threads=threads, log=log)
            known, queue = _recorded(results, plans(grid, files, accelerator, threads))
            write_text(results / GRID, yaml.safe_dump(grid.plain(), sort_keys=False))
            try:
                ended = _measure_all(queue, results, runner, report)
            finally:
                write_runs(results)
    except Timeout:
        raise ValueError(f"Another process runs a grid in {results}: wait for it, or give another folder") from None
    failed = [result for result in ended if not result.done]
    return Outcome(len(ended) - len(failed), len(known), failed)


def plans(
    grid: Grid, files: Mapping[str, str], accelerator: str = "auto", threads: int = 1
) -> list[list[one_cell.Plan]]:
    """Return the settings of every cell, by group. Backbones that cannot be loaded fail later, in their cells.

    Args:
        grid: what is measured.
        files: see :func:`~anomalib_spd.benchmark.checks.check_grid`.
        accelerator: as Lightning names it.
        threads: of torch on the CPU.
    """
    weights = cache(one_cell.weights)

    def plan(cell: Cell) -> one_cell.Plan:
        model, data = grid.model_config(cell), grid.data_config(cell)
        settings = one_cell.Plan(
            cell,
            model,
            data,
            grid.trainer_config(cell),
            grid.published(cell.backbone, cell.category),
            files_sha256=files[json.dumps(data, sort_keys=True)],
            accelerator=accelerator,
            threads=threads,
        )
        sha256, architecture = weights(settings.backbone)
        return replace(settings, weights_sha256=sha256, architecture=architecture)

    return [[plan(cell) for cell in group] for group in grid.groups()]


def measure(results: Path, group: Group) -> None:
    """Measure the cells of a group, one after the other, and record each as it ends.

    Args:
        results: folder of results.
        group: plans of cells with one backbone and one category.
    """
    shared: SharedFeatures | None = None
    for index, plan in enumerate(group):
        folder = plan.cell.folder(results)
        folder.mkdir(parents=True, exist_ok=True)
        with output_to(folder / LOG):
            if index == 0:
                shared = _shared_features(group)
            try:
                record, scores = one_cell.run(plan, shared)
            except Exception as error:
                write(folder, plan.cell, one_cell.failure(plan, error), None)
            else:
                write(folder, plan.cell, record, scores)


def _measure_all(queue: list[Group], results: Path, runner: Runner, report: Report) -> list[Result]:
    """Measure all cells, and return their records."""
    ended: list[Result] = []
    total = sum(map(len, queue))
    running: dict[Future[None], Group] = {}
    while queue or running:
        while queue and len(running) < runner.workers:
            group = queue.pop(0)
            running[runner.submit(measure, results, group)] = group
        ready, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
        for future, group in list(running.items()):
            left = _unrecorded(results, group, ended)
            if future not in ready:
                continue
            del running[future]
            if left:
                # the process was lost, and with it the cell that it was measuring; those behind are measured anew
                error = future.exception() or RuntimeError("The process ended without recording the cell")
                write(left[0].cell.folder(results), left[0].cell, one_cell.failure(left[0], error), None)
                queue[:0] = [rest] if (rest := _unrecorded(results, left, ended)) else []
        report(ended, total)
    return ended


def _recorded(results: Path, groups: Sequence[Group]) -> tuple[list[Result], list[Group]]:
    """Return the records of earlier runs, and the plans of cells to measure, by group; failed cells are among these."""
    known: list[Result] = []
    missing: list[Group] = []
    for group in groups:
        left = []
        for plan in group:
            result = on_record(plan.cell.folder(results))
            if result is None or not result.done:
                left.append(plan)
            else:
                check_same(result, plan)
                known.append(result)
        if left:
            missing.append(left)
    for plan in (plan for group in missing for plan in group):
        (plan.cell.folder(results) / RECORD).unlink(missing_ok=True)
    return known, missing


def check_same(result: Result, plan: one_cell.Plan, keys: Collection[str] = IDENTITY) -> None:
    """Check that a recorded cell was measured with the settings of a plan.

    Args:
        result: what is on record.
        plan: what is to be measured.
        keys: of the record that are compared.

    Raises:
        ValueError: it was measured with others.
    """
    origin = plan.origin
    changed = [NAMES.get(key, key) for key in origin if key in keys and result.record.get(key) != origin[key]]
    if changed:
        raise ValueError(
            f"{result.cell} is recorded in {result.folder}, but was measured with another {', '.join(changed)}: give "
            "another folder of results, or remove that one to measure it again"
        )


def _unrecorded(results: Path, group: Group, ended: list[Result]) -> Group:
    """Add the cells of a group that have ended to ``ended``, and return the others."""
    left = []
    known = {result.cell for result in ended}
    for plan in group:
        if plan.cell in known:
            continue
        if result := on_record(plan.cell.folder(results)):
            ended.append(result)
        else:
            left.append(plan)
    return left


def _shared_features(group: Group) -> SharedFeatures | None:
    """Return features at all layers that the detectors of a group name, if these are levels of timm's pyramid.

    Without them every detector computes its own, or fails by itself.
    """
    try:
        group = [plan for plan in group if "backbone" in plan.model["init_args"]]
        models = {plan.cell.detector: plan.model for plan in group}.values()
        layers = {layer for model in models for layer in check(AnomalibModule, model).get("layers") or ()}
        backbone = group[0].model["init_args"]["backbone"] if group else ""
        pyramid: Any = timm.create_model(backbone, features_only=True)
        ordered = [layer for layer in pyramid.feature_info.module_name() if layer in layers]
        return SharedFeatures(backbone, ordered) if ordered else None
    except Exception:
        traceback.print_exc()
        return None
