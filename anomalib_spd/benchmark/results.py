"""The records of a benchmark grid: a folder for each cell with ``cell.json`` and ``scores.npz``, and one table of all."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anomalib_spd.files import atomic_write, one_line
from anomalib_spd.metrics import METRICS

RECORD = "cell.json"
SCORES = "scores.npz"
RUNS = "runs.csv"
#: columns of every table of runs
COLUMNS = ("backbone", "sha256", "detector", "category", "seed", "status")
#: columns that stay text when a table of results is read
TEXT = ("backbone", "sha256", "detector", "category", "status", "a", "b", "categories", "seeds", "metric")
#: columns of a table of runs where defects are drawn on the validation images
OPERATING_POINT = (
    *("image_threshold", "false_alarms", "good_images", "false_alarms_low", "false_alarms_high"),
    *("test_false_alarms", "test_missed"),
)

#: shares of the normal images' pixels for which ``Scores`` has the score above which they lie
FALSE_POSITIVE_RATES = np.logspace(0, -4, 81)


@dataclass(frozen=True, order=True)
class Cell:
    """One run of a grid, by the grid's own labels."""

    backbone: str
    detector: str
    category: str
    seed: int

    def __str__(self) -> str:
        return f"{self.backbone} / {self.detector} / {self.category} / seed {self.seed}"

    def folder(self, results: Path) -> Path:
        """Return the folder of this cell in the folder of results."""
        return results / "cells" / self.backbone / self.detector / self.category / f"seed_{self.seed}"


@dataclass(frozen=True)
class Scores:
    """The scores of a detector on the N images of a test set, enough to compare it with another detector.

    Attributes:
        image_path: (N,) str, as the data module gave them.
        mask_path: (N,) str, empty for images without a mask.
        image_label: (N,) bool, true for anomalous images.
        image_score: (N,) float32, higher is more anomalous.
        anomaly_map: (N, h, w) float16, the anomaly maps, averaged down to at most 56 x 56 pixels: for pictures.
        false_positive_score: (81,) float32, the scores that a share of ``FALSE_POSITIVE_RATES`` of the normal images'
            pixels exceeds.
        pixel_positive: (N, K) int32, anomalous pixels of each image in each of K bins of scores, highest first, which
            all images share; (N, 0) without masks.
        pixel_negative: (N, K) int32, the normal pixels likewise.
        region_overlap: (N, K) float32, the share of the pixels of each defective region (of connected pixels) in these
            bins, summed over the regions of each image.
    """

    image_path: NDArray[np.str_]
    mask_path: NDArray[np.str_]
    image_label: NDArray[np.bool_]
    image_score: NDArray[np.float32]
    anomaly_map: NDArray[np.float16]
    false_positive_score: NDArray[np.float32]
    pixel_positive: NDArray[np.int32]
    pixel_negative: NDArray[np.int32]
    region_overlap: NDArray[np.float32]

    @property
    def undefined(self) -> dict[str, str]:
        """Level (``image``, ``pixel``) -> why none of its metrics is defined; empty where all are."""
        reasons = {}
        if len(set(self.image_label.tolist())) < 2:
            reasons["image"] = "no normal test image" if self.image_label.all() else "no anomalous test image"
        if self.pixel_positive.size and not (self.pixel_positive.any() and self.pixel_negative.any()):
            reasons["pixel"] = "no normal test pixel" if self.pixel_positive.any() else "no defective test pixel"
        return reasons


@dataclass(frozen=True)
class Result:
    """The record of a cell.

    Attributes:
        cell: which one.
        record: content of ``cell.json``.
        folder: that was read.
    """

    cell: Cell
    record: dict[str, Any]
    folder: Path

    @property
    def done(self) -> bool:
        """Whether the cell was measured; otherwise ``record["error"]`` has the error."""
        return bool(self.record["status"] == "done")

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by the names of ``METRICS``; those of pixels only where there are masks, none that is undefined."""
        metrics: dict[str, float] = self.record["metrics"]
        return metrics

    @property
    def scores_file(self) -> Path:
        """The file with the scores of every test image."""
        return self.folder / SCORES

    def scores(self) -> Scores:
        """Return the scores of every test image.

        Raises:
            OSError: they are missing.
        ValueError: they are damaged.
        """
        return read_scores(self.scores_file)


def write(folder: Path, cell: Cell, record: dict[str, Any], scores: Scores | None) -> None:
    """Write a record, scores first: a cell that has a ``cell.json`` is complete, whenever a process is killed.

    Args:
        folder: of this cell.
        cell: whose record.
        record: content of ``cell.json``, besides the cell itself.
        scores: None for a cell that failed.
    """
    if scores is not None:
        with atomic_write(folder / SCORES, remove_stale=True) as file:
            np.savez_compressed(file, allow_pickle=False, **{f.name: getattr(scores, f.name) for f in fields(scores)})
    with atomic_write(folder / RECORD, remove_stale=True) as file:
        file.write(json.dumps({"cell": asdict(cell), **record}, indent=2).encode() + b"\n")


def read(results: Path) -> Iterator[Result]:
    """Yield all recorded cells, in the order of their names.

    Args:
        results: folder of results.

    Raises:
        ValueError: a ``cell.json`` cannot be read.
    """
    for path in sorted((results / "cells").glob(f"*/*/*/*/{RECORD}")):
        if result := on_record(path.parent):
            yield result


def on_record(folder: Path) -> Result | None:
    """Return the record of a cell; None where there is none, or where the scores of a measured cell are missing or cut off.

    Args:
        folder: of the cell.

    Raises:
        ValueError: its ``cell.json`` is no record.
    """
    path = folder / RECORD
    result = read_record(path) if path.is_file() else None
    return result if result and (not result.done or is_zipfile(result.scores_file)) else None


def read_record(path: Path) -> Result:
    """Return the record in a ``cell.json``.

    Args:
        path: of the file.

    Raises:
        ValueError: the file is no record.
    """
    try:
        record = json.loads(path.read_bytes())
        cell = Cell(**record["cell"])
        _check_record(cell, record)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not the record of a cell ({error!r}): remove its folder to measure it again"
        ) from None
    return Result(cell, record, path.parent)


def _check_record(cell: Cell, record: dict[str, Any]) -> None:
    """Check what the tables and the report read.

    Raises:
        ValueError: a value is not what it should be; other errors, where a key is missing or has another type.
    """
    wrong = [name for name in ("backbone", "detector", "category") if not isinstance(getattr(cell, name), str)]
    wrong += ["seed"] * (not isinstance(cell.seed, int)) + ["status"] * (record["status"] not in ("done", "failed"))
    wrong += [name for name, value in record["metrics"].items() if not 0 <= value <= 1]
    wrong += [name for name, value in record.get("seconds", {}).items() if not 0 <= value < math.inf]
    mappings = ("sizes", "backbone", "config", "versions", "undefined", "published", "operating_point")
    wrong += [name for name in mappings if not isinstance(record.get(name) or {}, dict)]
    if record["status"] == "failed":
        wrong += [name for name in ("type", "message") if not isinstance(record["error"][name], str)]
    if wrong:
        raise ValueError(f"unexpected values of {', '.join(wrong)}")


def read_scores(path: Path) -> Scores:
    """Return the scores in a file.

    Args:
        path: of the file.

    Raises:
        OSError: it is missing.
        ValueError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            scores = Scores(**{field.name: arrays[field.name] for field in fields(Scores)})
        _check_scores(scores)
    except OSError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise nearly anything
        raise ValueError(
            f"{path} is damaged, it does not hold the scores of a cell ({error!r}): remove its folder, and run the "
            "benchmark again"
        ) from None
    return scores


def _check_scores(scores: Scores) -> None:
    counted = {name: getattr(scores, name) for name in ("pixel_positive", "pixel_negative", "region_overlap")}
    for name, array in ({"anomaly_map": scores.anomaly_map} | counted).items():
        if array.ndim != (2 if name in counted else 3):
            raise ValueError(f"{name} has {array.ndim} dimensions")
    lengths = {len(array) for name, array in vars(scores).items() if name != "false_positive_score"}
    if len(lengths) > 1 or len({each.shape for each in counted.values()}) > 1:
        raise ValueError(f"arrays of {sorted(lengths)} images")
    if scores.false_positive_score.shape != FALSE_POSITIVE_RATES.shape:
        raise ValueError(f"false_positive_score of shape {scores.false_positive_score.shape}")


def runs_table(results: Iterable[Result]) -> pd.DataFrame:
    """Return a table with one row a cell.

    Its columns, empty where a value is not known:

    - ``backbone``, ``sha256`` (of its weights), ``detector``, ``category``, ``seed``, ``status`` (``done``, ``failed``);
    - the names of ``METRICS``, each in ``[0, 1]``; ``undefined``: why some have no value;
    - ``class_path`` of the detector; ``published_dataset``, ``published_category``, ``published_protocol`` and
      ``published_method`` of the papers' figures beside it;
    - ``name`` (in the registry or in timm) and ``architecture`` of the backbone, ``files_sha256`` (of the list of images);
    - ``fit_seconds``, ``inference_seconds``, ``total_seconds``, ``features_shared``, ``peak_memory_bytes``;
    - ``train_images``, ``train_anomalous``, ``test_normal``, ``test_anomalous``, ``coreset_sampling_ratio``;
    - ``image_size``, ``crop``, ``map``: ``HEIGHTxWIDTH`` in pixels;
    - where defects are drawn on the validation images, ``image_threshold``, ``false_alarms`` among ``good_images``,
      ``false_alarms_low`` and ``false_alarms_high`` (per 1,000, 95 %), ``test_false_alarms`` and ``test_missed``;
    - ``device``, ``threads``, ``error`` (type and message), and for each package ``version_PACKAGE``.

    Args:
        results: of one grid.
    """
    rows = [_row(result) for result in results]
    columns = [*COLUMNS, *(metric.name for metric in METRICS)]
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*columns, *(key for row in rows for key in row)])))


def write_runs(results: Path) -> Path:
    """Write the table of all recorded cells to ``runs.csv`` in the folder of results; return its path."""
    path = results / RUNS
    with atomic_write(path) as file:
        runs_table(read(results)).to_csv(file, index=False, lineterminator="\n")
    return path


def read_table(path: Path, columns: Iterable[str] = COLUMNS) -> pd.DataFrame:
    """Return the table in a CSV file of results, such as one that :func:`write_runs` wrote.

    Args:
        path: of the file.
        columns: names of columns that it must have; by default those of every table of runs.

    Raises:
        OSError: it is missing.
        ValueError: it is no table, or lacks a column.
    """
    # labels stay text: a backbone may be called "1", a category "NA"
    try:
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXT, str),
            keep_default_na=False,
            na_values=[""],
            float_precision="round_trip",  # before pandas 3, the default may be off by the last digit
        )
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path} is not a table of results ({error}): give a CSV of 'anomalib-spd report'") from None
    if missing := [column for column in columns if column not in table]:
        raise ValueError(f"{path} has no column {', '.join(missing)}: give a CSV of 'anomalib-spd report'")
    return table


def _row(result: Result) -> dict[str, Any]:
    record, cell = result.record, result.cell
    point = dict(record.get("operating_point") or {})
    if point:
        point["false_alarms_low"], point["false_alarms_high"] = point["interval_per_1000"]
    backbone, sizes, error = record.get("backbone", {}), dict(record.get("sizes", {})), record.get("error")
    sizes |= {key: "x".join(map(str, sizes[key])) for key in ("image_size", "crop", "map") if sizes.get(key)}
    return {
        "backbone": cell.backbone,
        "sha256": backbone.get("weights_sha256"),
        "detector": cell.detector,
        "category": cell.category,
        "seed": cell.seed,
        "status": record["status"],
        **record["metrics"],
        "undefined": "; ".join(f"{level}: {reason}" for level, reason in record.get("undefined", {}).items()) or None,
        "class_path": record.get("config", {}).get("model", {}).get("class_path"),
        **{f"published_{key}": value for key, value in (record.get("published") or {}).items()},
        "name": backbone.get("name"),
        "architecture": backbone.get("architecture"),
        "files_sha256": record.get("files_sha256"),
        **{f"{name}_seconds": value for name, value in record.get("seconds", {}).items()},
        **{key: record.get(key) for key in ("features_shared", "peak_memory_bytes")},
        **sizes,
        **{key: point[key] for key in OPERATING_POINT if point},
        **{key: record.get(key) for key in ("device", "threads")},
        "error": one_line(f"{error['type']}: {error['message']}") if error else None,
        **{f"version_{package}": number for package, number in record.get("versions", {}).items()},
    }
