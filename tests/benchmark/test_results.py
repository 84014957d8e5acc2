"""The files that a cell leaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalib_spd.benchmark import results
from anomalib_spd.benchmark.results import Cell, Scores

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
    )


def test_what_is_written_is_read(tmp_path: Path, scores: Scores) -> None:
    results.write(CELL.folder(tmp_path), CELL, RECORD, scores)
    (result,) = results.read(tmp_path)
    assert result.cell == CELL
    assert result.done
    assert result.metrics == {"image_AUROC": 0.75}
    for name, array in vars(result.scores()).items():
        np.testing.assert_array_equal(array, getattr(scores, name))
        assert array.dtype == getattr(scores, name).dtype
    assert {path.name for path in CELL.folder(tmp_path).iterdir()} == {"cell.json", "scores.npz"}


def test_a_cell_is_on_record_only_when_it_is_whole(
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


def test_what_a_killed_process_left_is_cleared(tmp_path: Path, scores: Scores) -> None:
    CELL.folder(tmp_path).mkdir(parents=True)
    (CELL.folder(tmp_path) / ".cell.json.12345").write_text("{")
    results.write(CELL.folder(tmp_path), CELL, RECORD, scores)
    assert {path.name for path in CELL.folder(tmp_path).iterdir()} == {"cell.json", "scores.npz"}


@pytest.mark.parametrize("content", ["{", "{}", '{"cell": {"backbone": "a"}}'])
def test_a_record_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    CELL.folder(tmp_path).mkdir(parents=True)
    (CELL.folder(tmp_path) / "cell.json").write_text(content)
    with pytest.raises(ValueError, match=r"cell\.json is not the record of a cell"):
        list(results.read(tmp_path))
