"""Damaged records: each is named in one line, whatever is wrong with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalib_spd.benchmark.results import Cell
from anomalib_spd.cli.main import main
from tests.report.synthetic import SMALL, write_results

ONE = Cell("base", "patchcore_0.01", "bottle", 0)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path / "results", SMALL)


def changed(path: Path, **changes: Any) -> None:
    with np.load(path) as arrays:
        content = {**dict(arrays), **changes}
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


SCORES: dict[str, Callable[[Path], None]] = {
    "bit": lambda path: path.write_bytes(path.read_bytes().replace(b"image_score.npy", b"image_scare.npy")),
    "missing array": lambda path: changed(path, image_score=None),
    "lengths": lambda path: changed(path, image_label=np.zeros(3, bool)),
    "dimensions": lambda path: changed(path, anomaly_map=np.zeros(24, np.float16)),
    "object": lambda path: changed(path, image_path=np.array([{}] * 24, dtype=object)),
}
RECORDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "empty": lambda record: "",
    "cut": lambda record: json.dumps(record)[:40],
    "list": lambda record: "[]",
    "deep": lambda record: "[" * 100_000,
    "no status": lambda record: {**record, "status": "fine"},
    "no metrics": lambda record: {key: value for key, value in record.items() if key != "metrics"},
    "text": lambda record: {**record, "metrics": {"image_AUROC": "0.9"}},
    "above 1": lambda record: {**record, "metrics": {"image_AUROC": 1.5}},
    "NaN": lambda record: {**record, "metrics": {"image_AUROC": float("nan")}},
    "seed": lambda record: {**record, "cell": {**record["cell"], "seed": "0"}},
    "label": lambda record: {**record, "cell": {**record["cell"], "backbone": 3}},
    "sizes": lambda record: {**record, "sizes": [1]},
    "no error": lambda record: {**record, "status": "failed", "error": None},
}


@pytest.mark.parametrize("name", SCORES)
def test_damaged_scores_are_named(results: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = ONE.folder(results) / "scores.npz"
    SCORES[name](path)
    assert main(["report", str(results)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path} is damaged, it does not hold the scores of a cell (")
    assert line.endswith("remove its folder, and run the benchmark again")


@pytest.mark.parametrize("name", RECORDS)
def test_damaged_records_are_named(results: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = ONE.folder(results) / "cell.json"
    content = RECORDS[name](json.loads(path.read_text()))
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert main(["report", str(results)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path} is not the record of a cell (")


def test_the_report_goes_on_without_cells_that_have_no_scores(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", {**SMALL, "categories": {"bottle": None, "screw": None}})
    path = Cell("base", "patchcore_0.01", "screw", 0).folder(results) / "scores.npz"
    path.write_bytes(path.read_bytes()[:500])
    assert main(["report", str(results), "--without-images"]) == 0
    assert "base / patchcore_0.01 / screw / seed 0" in (results / "report/report.md").read_text().replace("\\", "")


def test_a_full_disk_leaves_no_half_of_a_report(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert main(["report", str(results)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list((results / "report").iterdir()) == []
    (results / "report" / ".report.html.0123abcd").touch()  # of a process that was killed
    assert main(["report", str(results)]) == 0
    assert (results / "report/report.html").stat().st_size > 1000
