"""A grid in one line, from Python: a recipe, a file or a mapping in, the table of its cells out."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.results import RUNS, read_table
from anomalib_spd.benchmark.run import run
from anomalib_spd.benchmark.runners import Processes
from anomalib_spd.config_files import load_config_files


def measure(
    grid: Grid | Mapping[str, Any] | Path | str,
    results: Path | str | None = None,
    *,
    workers: int = 1,
    threads: int = 1,
    accelerator: str = "auto",
) -> pd.DataFrame:
    """Measure the cells of a grid that are not on record, each a stock anomalib run, and return the table of all.

    ``anomalib-spd benchmark`` from Python; given again, it goes on where it was stopped. A script that calls it needs
    ``if __name__ == "__main__":``, as cells run in processes of their own.

    Args:
        grid: a grid, the keys of one, the path of a YAML file, or the name of a recipe such as ``"benchmark/quick"``.
        results: folder of results; by default the file's own, or ``results/benchmark``.
        workers: how many cells are measured at a time.
        threads: of torch on the CPU, for each of them.
        accelerator: as Lightning names it.

    Returns:
        A row for every cell, as ``runs.csv`` has it; failed cells have ``status`` ``"failed"`` and no metrics.

    Raises:
        GridError: what is wrong with the grid, all of it, before the first cell.
        ValueError: cells on record were measured with other settings.
        FileNotFoundError: there is no such file or recipe.
    """
    if isinstance(grid, Grid):
        values: Mapping[str, Any] = {}
    else:
        values = load_config_files([str(grid)]) if isinstance(grid, Path | str) else grid
        grid = Grid(**{each.name: values[each.name] for each in fields(Grid) if each.name in values})
    folder = Path(results or values.get("results") or "results/benchmark")
    with Processes(workers) as runner:
        run(grid, folder, runner, accelerator=accelerator, threads=threads)
    print(f"Tables and pictures: anomalib-spd report {folder}")
    return read_table(folder / RUNS)
