"""A report of synthetic results, written once for all tests."""

import shutil
from pathlib import Path

import pytest

from anomalib_spd.report import page as report
from anomalib_spd.report.page import write_report
from tests.report.synthetic import RESAMPLES, SMALL, write_results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("report") / "results")


@pytest.fixture(scope="session")
def written(results: Path) -> Path:
    folder = results / "report"
    write_report(results, folder, resamples=RESAMPLES)
    return folder


@pytest.fixture(scope="session")
def markdown(written: Path) -> str:
    return (written / report.TEXT).read_text()


@pytest.fixture(scope="session")
def page(written: Path) -> str:
    return (written / report.PAGE).read_text()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two cells without their photographs."""
    folder = write_results(tmp_path_factory.mktemp("small") / "results", SMALL)
    shutil.rmtree(folder / "images")
    return folder
