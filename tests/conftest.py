"""What several test modules share."""

import enum
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[1]


class _Choice(enum.StrEnum):
    ONE = "one"


#: anomalib's checkpoints hold such choices. The first releases of Python 3.11 pickle them through ``getattr``, which torch does not
#: load with weights alone: there, stock anomalib cannot read a checkpoint that it wrote itself
reloads_checkpoints = pytest.mark.xfail(
    _Choice.ONE.__reduce_ex__(2)[0] is getattr,
    reason="this Python pickles enumerations through getattr: stock anomalib cannot reload its own checkpoints",
    strict=True,
)


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real images that are no part of the project."""
    folder = Path(os.environ.get("ANOMALIB_SPD_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs real images: {folder} does not exist; set ANOMALIB_SPD_TEST_DATA")
    return folder


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty shelf of the user's own."""
    folder = tmp_path / "shelf"
    monkeypatch.setenv("ANOMALIB_SPD_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def labelled_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small pictures of three classes, named as ImageNet names its files."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(12):
        pixels = rng.integers(0, 256, (40 + index, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"n0000{index % 3}_{index}.jpg")
    return folder
