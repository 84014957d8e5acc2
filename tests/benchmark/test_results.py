"""The files of a cell, and the table of all cells."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalib_spd.benchmark import results
from anomalib_spd.benchmark.results import Cell, Scores
from anomalib_spd.metrics import METRICS

CELL = Cell("a", "PatchCore 0.01", "bottle", 2)
RECORD: dict[str, Any] = {"status": "done", "error": None, "metrics": {"image_AUROC": 0.75}}


@pytest.fixture
def scores() -> Scores:
    rng = np.random.default_rng(0)
    return Scores(
        image_path=np.array(["a.png", "some/where/b.png"]),
        mask_path=np.array(["", "m.png"]),
        image_label=np.array([False, True]),
        image_score=rng.random(2).astype(np.float32),
        anomaly_map=rng.random((2, 3, 4)).astype(np.float16),
        false_positive_score=rng.random(81).astype(np.float32),
        pixel_positive=rng.integers(0, 9, (2, 5), dtype=np.int32),
        pixel_negative=rng.integers(0, 9, (2, 5), dtype=np.int32),
        region_overlap=rng.random((2, 5)).astype(np.float32),
    )


def test_what_is_written_is_read_back(tmp_path: Path, scores: Scores) -> None:
    results.write(CELL.folder(tmp_path), CELL, RECORD, scores)
    (result,) = results.read(tmp_path)
    assert result.cell == CELL
    assert result.done
    assert result.metrics == {"image_AUROC": 0.75}
    for name, array in vars(result.scores()).items():
        np.testing.assert_array_equal(array, getattr(scores, name))
        assert array.dtype == getattr(scores, name).dtype
    assert {path.name for path in CELL.folder(tmp_path).iterdir()} == {"cell.json", "scores.npz"}


def test_a_cell_is_recorded_only_when_it_is_complete(
    tmp_path: Path, scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", fail)
        with pytest.raises(OSError, match="disk full"):
            results.write(CELL.folder(tmp_path), CELL, RECORD, scores)
    assert list(results.read(tmp_path)) == []
    assert list(CELL.folder(tmp_path).iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", fail)
        with pytest.raises(OSError, match="disk full"):
            results.write(CELL.folder(tmp_path), CELL, RECORD, scores)
    assert list(results.read(tmp_path)) == []
    assert [path.name for path in CELL.folder(tmp_path).iterdir()] == ["scores.npz"]


def test_files_of_a_killed_process_are_removed(tmp_path: Path, scores: Scores) -> None:
    CELL.folder(tmp_path).mkdir(parents=True)
    (CELL.folder(tmp_path) / ".cell.json.12345").write_text("{")
    results.write(CELL.folder(tmp_path), CELL, RECORD, scores)
    assert {path.name for path in CELL.folder(tmp_path).iterdir()} == {"cell.json", "scores.npz"}


@pytest.mark.parametrize("content", ["{", "{}", '{"cell": {"backbone": "a"}}'])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    CELL.folder(tmp_path).mkdir(parents=True)
    (CELL.folder(tmp_path) / "cell.json").write_text(content)
    with pytest.raises(ValueError, match=r"cell\.json is not the record of a cell"):
        list(results.read(tmp_path))


def test_the_table_of_runs_is_read_back(tmp_path: Path, scores: Scores) -> None:
    record = {
        **RECORD,
        "backbone": {"name": "a_2", "architecture": "resnet18", "weights_sha256": "0123"},
        "seconds": {"fit": 1.5, "inference": 0.1, "total": 2.0},
        "sizes": {"train_images": 6, "image_size": [80, 96], "crop": None},
        "versions": {"torch": "2.14.1"},
    }
    failed = Cell("a", "PaDiM", "bottle", 2)
    error = {"type": "ValueError", "message": "no\nsuch thing", "traceback": ""}
    results.write(CELL.folder(tmp_path), CELL, record, scores)
    results.write(
        failed.folder(tmp_path), failed, {"status": "failed", "error": error, "metrics": {}, "seconds": {}}, None
    )
    table = results.read_table(results.write_runs(tmp_path))
    names = [metric.name for metric in METRICS]
    first = ["backbone", "sha256", "detector", "category", "seed", "status"]
    assert list(table.columns[: len(first) + len(names)]) == first + names
    bad, good = table.to_dict("records")
    assert (good["backbone"], good["detector"], good["seed"], good["status"]) == ("a", "PatchCore 0.01", 2, "done")
    assert (good["sha256"], good["name"], good["image_AUROC"], good["fit_seconds"]) == ("0123", "a_2", 0.75, 1.5)
    assert (good["image_size"], good["train_images"], good["version_torch"]) == ("80x96", 6, "2.14.1")
    assert np.isnan(good["pixel_AUPRO"])
    assert (bad["detector"], bad["status"], bad["error"]) == ("PaDiM", "failed", "ValueError: no such thing")


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("backbone,seed\na,0\n")
    with pytest.raises(ValueError, match=r"runs\.csv has no column sha256, detector"):
        results.read_table(tmp_path / "runs.csv")
