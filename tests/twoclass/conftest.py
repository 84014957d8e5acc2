"""Small images that the tests of the 2-class protocols share."""

import shutil
from pathlib import Path

import pytest

from tests.benchmark.grids import draw_images


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten normal and five anomalous images in VisA's layout."""
    folder = tmp_path_factory.mktemp("two_class")
    draw_images(folder, "one")
    return folder


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """The folder of the same images, to be changed."""
    return Path(shutil.copytree(root / "visa_pytorch/one", tmp_path / "visa_pytorch/one"))
