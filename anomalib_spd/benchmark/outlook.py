"""What a grid would do: its cells, which of them are on record, the trainings before them, and about how long it takes."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from anomalib_spd import backbones
from anomalib_spd.benchmark.cell import Plan
from anomalib_spd.benchmark.grid import Grid, GridError
from anomalib_spd.benchmark.results import Cell, Result, on_record
from anomalib_spd.benchmark.run import check_same


@dataclass(frozen=True)
class Outlook:
    """What a grid would do.

    Attributes:
        done: cells that are on record.
        failed: cells that failed before, and are measured again.
        new: cells that are measured for the first time.
        trainings: names of the backbones that are fine-tuned first.
        seconds: that the cells to measure take, one after the other, by those on record of their detector; None where one has
            none.
    """

    done: list[Cell]
    failed: list[Cell]
    new: list[Cell]
    trainings: list[str]
    seconds: float | None


def outlook(grid: Grid, results: Path) -> Outlook:
    """Return what a grid would do; nothing is read but its records.

    Args:
        grid: what is measured.
        results: folder of results.

    Raises:
        GridError: cells are on record with other settings, or their record is damaged.
    """
    known: dict[Cell, Result | None] = {}
    errors = []
    for cell in grid.cells():
        plan = Plan(cell, grid.model_config(cell), grid.data_config(cell), grid.trainer_config(cell))
        try:
            known[cell] = on_record(cell.folder(results))
            if (result := known[cell]) and result.done:
                check_same(result, plan, {"config"})
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise GridError(errors)
    seconds = defaultdict[str, list[float]](list)
    for result in known.values():
        if result and result.done:
            seconds[result.cell.detector].append(result.record["seconds"]["total"])
    left = [cell for cell, result in known.items() if not (result and result.done)]
    return Outlook(
        done=[cell for cell in known if cell not in left],
        failed=[cell for cell in left if known[cell]],
        new=[cell for cell in left if not known[cell]],
        trainings=[name for name in grid.trainings() if name not in backbones.available()],
        seconds=sum(mean(seconds[cell.detector]) for cell in left)
        if all(seconds[cell.detector] for cell in left)
        else None,
    )
