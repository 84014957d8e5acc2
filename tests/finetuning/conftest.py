"""Small images, and the networks that look at them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from anomalib_spd.backbones import register
from tests.benchmark.grids import draw_images, put_on_shelf


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six normal training images of each of two categories, in VisA's layout."""
    folder = tmp_path_factory.mktemp("finetuning")
    for seed, category in enumerate(["one", "two"]):
        draw_images(folder, category, seed=seed)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A shelf with the networks ``tiny_a`` and ``tiny_b``, random as they are, and room for caches."""
    folder = tmp_path / "home"
    monkeypatch.setenv("ANOMALIB_SPD_HOME", str(folder))
    for seed, name in enumerate(["tiny_a", "tiny_b"]):
        put_on_shelf(name, seed, tmp_path)
    yield folder
    monkeypatch.undo()
    register()
