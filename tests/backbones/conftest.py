"""What the tests of the registry share: a registry of their own, networks that differ from one another, checkpoint files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from anomalib_spd.backbones import register


def content(folder: Path) -> dict[str, bytes]:
    """Return everything in a folder that there may not be, hidden files too."""
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else b"" for f in folder.rglob("*")}


@pytest.fixture(autouse=True)
def registry(tmp_path: Path) -> Iterator[Path]:
    """An empty registry for each test; it does not exist until something is put there."""
    folder = tmp_path / "home" / "registry"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALIB_SPD_HOME", str(folder))
        register()
        yield folder
    register()


@pytest.fixture
def images() -> torch.Tensor:
    """Two images as anomalib feeds them."""
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
