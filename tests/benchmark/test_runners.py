"""Cells in processes of their own, on this machine and under Ray, also when one is killed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
import timm

from anomalib_spd.backbones import register
from anomalib_spd.benchmark import run as benchmark
from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.results import Cell, read
from anomalib_spd.benchmark.runners import Processes, Ray
from tests.benchmark.grids import Inline, add_to_registry, draw_images, small_grid, small_registry, write_config

COMMAND = [sys.executable, "-c", "import sys; from anomalib_spd.cli.main import main; sys.exit(main())", "benchmark"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("runners")
    draw_images(folder, "one")
    with small_registry(folder):
        yield folder


def config(root: Path, **changes: Any) -> dict[str, Any]:
    return small_grid(root, **{"categories": {"one": None}, "seeds": [0], **changes})


def figures(results: Path) -> dict[Cell, dict[str, float]]:
    return {result.cell: result.metrics for result in read(results)}


@pytest.fixture(scope="module")
def expected(root: Path) -> dict[Cell, dict[str, float]]:
    """The figures of the grid of these tests, measured in this process."""
    outcome = benchmark.run(Grid(**config(root, seeds=[0, 1])), root / "expected", Inline(), accelerator="cpu")
    assert outcome.measured == 8
    return figures(root / "expected")


@pytest.mark.slow
def test_a_grid_that_is_killed_at_any_moment_resumes(
    root: Path, expected: dict[Cell, dict[str, float]], tmp_path: Path
) -> None:
    file = write_config(tmp_path / "grid.yaml", config(root, seeds=[0, 1]))
    results = tmp_path / "results"
    command = [*COMMAND, "--config", str(file), "--results", str(results), "--accelerator", "cpu", "--threads", "1"]
    before: dict[Path, int] = {}
    for cells in (1, 5):
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 240
        while len(list(results.rglob("cell.json"))) < cells and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        # the parent alone: its workers must end by themselves, or two would measure one cell
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        while _alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _alive(process.pid)
        recorded = {path: path.stat().st_mtime_ns for path in results.rglob("cell.json")}
        assert len(recorded) >= cells
        assert before.items() <= recorded.items()
        before = recorded
    last = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert last.returncode == 0, last.stderr
    assert f"{8 - len(before)} cells measured, {len(before)} recorded before, 0 failed" in last.stdout
    assert before.items() <= {path: path.stat().st_mtime_ns for path in results.rglob("cell.json")}.items()
    assert figures(results) == expected
    assert not list(results.rglob("*.json.*"))


def _alive(session: int) -> bool:
    """Whether a process of that session is left."""
    return subprocess.run(["pgrep", "--session", str(session)], capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_cell_that_kills_its_process_is_recorded_and_the_others_go_on(
    root: Path, expected: dict[Cell, dict[str, float]], tmp_path: Path
) -> None:
    crashing = {
        "class_path": "tests.benchmark.crashing_detector.CrashingDetector",
        "init_args": {"layers": ["blocks.1"]},
    }
    detectors = config(root)["detectors"]
    grid = Grid(
        **config(
            root,
            backbones={"a": "small_a"},
            detectors={"PaDiM": detectors["PaDiM"], "crashing": crashing, "PatchCore 0.1": detectors["PatchCore 0.1"]},
        )
    )
    outcome = benchmark.run(grid, tmp_path, Processes(1), accelerator="cpu")
    assert outcome.measured == 2
    (failed,) = outcome.failed
    assert failed.cell == Cell("a", "crashing", "one", 0)
    assert failed.record["error"]["type"] == BrokenProcessPool.__name__
    for cell in (Cell("a", "PaDiM", "one", 0), Cell("a", "PatchCore 0.1", "one", 0)):
        assert figures(tmp_path)[cell] == expected[cell]


def _write_sum(file: Path) -> None:
    file.write_text(_sum())


def _sum() -> str:
    weights = timm.create_model("mine", pretrained=True).parameters()
    return str(sum(each.double().sum().item() for each in weights))


def test_a_process_has_the_registry_of_its_start(tmp_path: Path) -> None:
    """The process is a copy of one that began earlier, with another environment."""
    for seed in range(2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ANOMALIB_SPD_HOME", str(folder / "registry"))
            add_to_registry("mine", seed, folder)
            Processes(1).submit(_write_sum, folder / "sum.txt").result(timeout=120)
            assert (folder / "sum.txt").read_text() == _sum()
        register()
    assert (tmp_path / "0" / "sum.txt").read_text() != (tmp_path / "1" / "sum.txt").read_text()


def test_the_exit_status_is_1_where_cells_failed(root: Path, tmp_path: Path) -> None:
    grid = config(root, backbones={"a": "small_a"})
    grid["detectors"]["PaDiM"]["init_args"]["n_features"] = 10_000
    file = write_config(tmp_path / "grid.yaml", grid)
    ended = subprocess.run(
        [*COMMAND, "--config", str(file), "--results", str(tmp_path / "results")], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "failed: a / PaDiM / one / seed 0: " in ended.stderr
    assert "found 10000" in ended.stderr
    assert "1 cells measured, 0 recorded before, 1 failed" in ended.stdout
    assert "Traceback" not in ended.stderr


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Folder of temporary files; ``tmp_path`` is too long for the sockets of a grid."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize(("length", "accepted"), [(58, True), (90, False)])
def test_a_folder_of_temporary_files_holds_sockets_or_is_refused(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch, length: int, accepted: bool
) -> None:
    folder = short_folder / ("x" * (length - len(str(short_folder)) - 1))
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    if accepted:
        processes = Processes(1)
        assert processes.submit(abs, -3).result(timeout=120) == 3
        processes.shutdown()
    else:
        with pytest.raises(OSError, match=r"bytes too long.*set TMPDIR"):
            Processes(1)
    assert not list(folder.glob("spd-*"))


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_grid_says_how_to_go_on_and_leaves_nothing(
    root: Path, tmp_path: Path, short_folder: Path, sent: signal.Signals
) -> None:
    waiting = {
        "class_path": "tests.benchmark.crashing_detector.WaitingDetector",
        "init_args": {"layers": ["blocks.1"]},
    }
    detectors = {**config(root)["detectors"], "waiting": waiting}
    file = write_config(tmp_path / "grid.yaml", config(root, detectors=detectors, backbones={"a": "small_a"}))
    results, temporary = tmp_path / "results", short_folder
    process = subprocess.Popen(
        [*COMMAND, "--config", str(file), "--results", str(results), "--accelerator", "cpu", "--threads", "1"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    log = results / "cells/a/waiting/one/seed_0/log.txt"
    deadline = time.monotonic() + 240
    while not (log.is_file() and "waits" in log.read_text()) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + sent
    # others' warnings, such as timm's of a module that anomalib imports, may stand before it
    said = [line for line in error.splitlines() if line.startswith("stopped by")]
    assert said == [f"stopped by {sent.name}: 2 cells are recorded in {results}; the same command goes on"]
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid)
    assert list(temporary.iterdir()) == []
    assert not [path for path in results.rglob(".*") if path.name != ".lock"]


def test_a_file_that_is_no_grid_is_an_error_of_one_line(root: Path, tmp_path: Path) -> None:
    file = write_config(tmp_path / "grid.yaml", config(root, seeds=[0, 0]))
    command = [*COMMAND, "--config", str(file), "--results", str(tmp_path / "results")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "error: seeds must name at least one, each once; got [0, 0]" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_ray_gives_the_same_figures(root: Path, expected: dict[Cell, dict[str, float]], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="the optional extra [ray] is not installed")

    def exit_at_once() -> None:
        os._exit(9)

    runner = Ray(workers=2, threads=1)
    try:
        outcome = benchmark.run(Grid(**config(root)), tmp_path, runner, accelerator="cpu")
        assert (outcome.measured, outcome.failed) == (4, [])
        lost = runner.submit(exit_at_once)
        assert isinstance(lost.exception(timeout=120), ray.exceptions.WorkerCrashedError)
    finally:
        runner.shutdown()
    found = figures(tmp_path)
    assert found == {cell: expected[cell] for cell in found}
    workers = {json.loads(path.read_text())["process"] for path in tmp_path.rglob("cell.json")}
    assert len(workers) == 2
    assert os.getpid() not in workers


def test_without_ray_its_runner_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anomalib_spd\[ray\]'"):
        Ray(workers=2, threads=1)
