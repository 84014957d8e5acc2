"""``anomalib-spd benchmark --dry-run``: what a grid would do and what is missing; a grid's own start looks likewise."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from anomalib_spd.benchmark import run as benchmark
from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.results import read
from anomalib_spd.cli.main import main
from tests.benchmark.grids import Inline, draw_images, small_grid, small_registry, write_config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images, and a registry with two backbones."""
    folder = tmp_path_factory.mktemp("dry_run")
    draw_images(folder, "one")
    draw_images(folder, "two", masks=False, seed=1)
    with small_registry(folder):
        yield folder


def content(folder: Path) -> list[tuple[Path, int]]:
    return sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_cells_on_record_the_others_and_their_time(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    config = small_grid(root, seeds=[0], categories={"one": None}, backbones={"a": "small_a"})
    write_config(tmp_path / "grid.yaml", config)
    args = ["benchmark", "--config", "grid.yaml", "--results", "results", "--dry-run"]
    before = content(tmp_path)
    assert main(args) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "to measure     a / PaDiM / one / seed 0"
    assert "2 cells: 0 on record, 2 to measure, in results\nNo estimate of the time" in out
    assert content(tmp_path) == before

    assert benchmark.run(Grid(**config), results, Inline(), accelerator="cpu").measured == 2
    seconds = sum(each.record["seconds"]["total"] for each in read(results))
    failed = results / "cells" / "a" / "PaDiM" / "one" / "seed_2"
    failed.mkdir()
    record = json.loads((failed.parent / "seed_0" / "cell.json").read_text())
    error = {"type": "RuntimeError", "message": "lost", "traceback": ""}
    (failed / "cell.json").write_text(
        json.dumps({**record, "cell": {**record["cell"], "seed": 2}, "status": "failed", "metrics": {}, "error": error})
    )
    made = {"backbone": "made_{category}_{seed}", "finetune": {"config": "finetune/cutswap"}}
    write_config(tmp_path / "grid.yaml", {**config, "backbones": {"a": "small_a", "b": made}, "seeds": [0, 1, 2]})
    before = content(tmp_path)
    assert main([*args, "--workers", "2"]) == 0
    out = capsys.readouterr().out
    states = [line.split("  ")[0] for line in out.splitlines() if " / " in line]
    assert [states.count(each) for each in ("on record", "failed, again", "to measure")] == [2, 1, 9]
    assert "failed, again  a / PaDiM / one / seed 2" in out
    assert "3 backbones are fine-tuned first: made_one_0, made_one_1, made_one_2\n" in out
    minutes, left = divmod(round(5 * seconds / 2), 60)
    assert (
        f"About 0:{minutes:02d}:{left:02d} (hours:minutes:seconds) by the cells on record, 2 at a time, without" in out
    )
    assert content(tmp_path) == before

    # a cell that the grid itself would refuse is not said to be on record
    config["detectors"]["PaDiM"]["init_args"]["n_features"] = 9
    write_config(tmp_path / "grid.yaml", config)
    assert main(args) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a / PaDiM / one / seed 0 is recorded in ")
    assert "was measured with another config" in line


def test_a_data_set_that_would_be_downloaded_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomalib.data.datamodules.image.mvtecad.download_and_extract", pytest.fail)
    args = ["benchmark", "--config", "benchmark/cutswap_mvtec", "--data.root", str(tmp_path), "--dry-run"]
    (tmp_path / "bottle").mkdir()
    assert main(args) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 14
    assert lines[0] == f"error: The folder of images {tmp_path / 'cable'} does not exist; MVTecAD would be downloaded."
    assert content(tmp_path) == [(tmp_path / "bottle", (tmp_path / "bottle").stat().st_mtime_ns)]


def test_into_an_empty_folder_a_grid_downloads_and_tries_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def download(root: Path, info: object) -> None:
        tried.append(Path(root))
        raise OSError("no network")

    monkeypatch.setattr("anomalib.data.datamodules.image.visa.download_and_extract", download)
    (tmp_path / "visa").mkdir()
    args = ["--data.root", str(tmp_path / "visa"), "--results", str(tmp_path / "results")]
    assert main(["benchmark", "--config", "benchmark/cutswap_visa", *args]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: categories: candle: Visa candle: not all of it is in ")
    assert tried == [tmp_path / "visa"]
    assert not (tmp_path / "results").exists()


def test_folders_that_nothing_downloads_and_that_of_results_are_looked_at(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_grid(root)
    config["categories"]["two"]["init_args"]["abnormal_dir"] = "test/worse"
    path = write_config(tmp_path / "grid.yaml", config)
    assert main(["benchmark", "--config", str(path), "--results", str(path / "results"), "--dry-run"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"error: results: {path / 'results'} cannot be written, as {path} is no folder")
    assert lines[1].startswith("error: categories: two: ")
    assert main(["benchmark", "--config", str(path), "--results", str(path / "results")]) == 1
    assert "cannot be written" in capsys.readouterr().err
