"""What a cell of a benchmark grid leaves behind: one folder with ``cell.json`` and ``scores.npz``."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_spd.files import atomic_write

RECORD = "cell.json"
SCORES = "scores.npz"

#: at these shares of the normal images' pixels above them, the scores of a detector are noted
FALSE_POSITIVE_RATES = np.logspace(0, -4, 81)


@dataclass(frozen=True, order=True)
class Cell:
    """One run of a grid. The names are the grid's own labels."""

    backbone: str
    detector: str
    category: str
    seed: int

    def __str__(self) -> str:
        return f"{self.backbone} / {self.detector} / {self.category} / seed {self.seed}"

    def folder(self, results: Path) -> Path:
        """Where this cell stands in the folder of results."""
        return results / "cells" / self.backbone / self.detector / self.category / f"seed_{self.seed}"


@dataclass(frozen=True)
class Scores:
    """What a detector said of the N images of a test set, enough to compare it with another.

    Attributes:
        image_path: (N,) str, as the data module gave them.
        mask_path: (N,) str, empty where an image has none.
        image_label: (N,) bool, true for anomalous images.
        image_score: (N,) float32, higher is more anomalous.
        anomaly_map: (N, h, w) float16, the anomaly maps, averaged down to at most 56 pixels a side: for pictures.
        false_positive_score: (81,) float32, the scores that a share of ``FALSE_POSITIVE_RATES`` of the normal images'
            pixels exceeds.
        pixel_positive: (N, K) int32, anomalous pixels of each image in each of K bins of scores, highest first, which
            all images share; (N, 0) where the set has no masks.
        pixel_negative: (N, K) int32, the normal pixels likewise.
    """

    image_path: NDArray[np.str_]
    mask_path: NDArray[np.str_]
    image_label: NDArray[np.bool_]
    image_score: NDArray[np.float32]
    anomaly_map: NDArray[np.float16]
    false_positive_score: NDArray[np.float32]
    pixel_positive: NDArray[np.int32]
    pixel_negative: NDArray[np.int32]


@dataclass(frozen=True)
class Result:
    """What is on record of a cell.

    Attributes:
        cell: which one.
        record: the content of ``cell.json``.
        folder: where it was read.
    """

    cell: Cell
    record: dict[str, Any]
    folder: Path

    @property
    def done(self) -> bool:
        """Whether the cell was measured; otherwise ``record["error"]`` says what went wrong."""
        return bool(self.record["status"] == "done")

    @property
    def metrics(self) -> dict[str, float]:
        """Figures by name, such as ``image_AUROC`` or ``pixel_AUPR_step``; pixel figures only where there are masks."""
        metrics: dict[str, float] = self.record["metrics"]
        return metrics

    @property
    def scores_file(self) -> Path:
        """Where the scores of every test image are."""
        return self.folder / SCORES

    def scores(self) -> Scores:
        """The scores of every test image.

        Raises:
            OSError: they are missing.
        """
        return read_scores(self.scores_file)


def write(folder: Path, cell: Cell, record: dict[str, Any], scores: Scores | None) -> None:
    """Put a cell on record, scores first: a cell whose ``cell.json`` stands is complete, whenever a process is killed.

    Args:
        folder: of this cell.
        cell: whose.
        record: what ``cell.json`` holds, besides the cell itself.
        scores: absent for a cell that failed.
    """
    if scores is not None:
        with atomic_write(folder / SCORES, remove_stale=True) as file:
            np.savez_compressed(file, allow_pickle=False, **{f.name: getattr(scores, f.name) for f in fields(scores)})
    with atomic_write(folder / RECORD, remove_stale=True) as file:
        file.write(json.dumps({"cell": asdict(cell), **record}, indent=2).encode() + b"\n")


def read(results: Path) -> Iterator[Result]:
    """All cells on record, in the order of their names.

    Args:
        results: folder of results.

    Raises:
        ValueError: a ``cell.json`` cannot be read.
    """
    for path in sorted((results / "cells").glob(f"*/*/*/*/{RECORD}")):
        yield read_record(path)


def read_record(path: Path) -> Result:
    """What one ``cell.json`` says.

    Args:
        path: of the file.

    Raises:
        ValueError: it is none.
    """
    try:
        record = json.loads(path.read_text())
        return Result(Cell(**record["cell"]), record, path.parent)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not the record of a cell ({error!r}): remove its folder to measure it again"
        ) from None


def read_scores(path: Path) -> Scores:
    """The scores in a file.

    Args:
        path: of the file.

    Raises:
        OSError: it is missing.
    """
    with np.load(path, allow_pickle=False) as arrays:
        return Scores(**{field.name: arrays[field.name] for field in fields(Scores)})
