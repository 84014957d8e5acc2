"""What the tests of the shelf share: a shelf of their own, networks that differ from one another, checkpoint files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from anomalib_spd.backbones import register

MakeModel = Callable[..., nn.Module]
SaveModel = Callable[..., Path]


def content(folder: Path) -> dict[str, bytes]:
    """Return everything in a folder that there may not be, hidden files too."""
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else b"" for f in folder.rglob("*")}


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path) -> Iterator[Path]:
    """An empty shelf for each test; it does not exist until something is put there."""
    folder = tmp_path / "home" / "shelf"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALIB_SPD_HOME", str(folder))
        register()
        yield folder
    register()


@pytest.fixture
def make_model() -> MakeModel:
    """A timm model with random weights, batch statistics included: no two layers are alike."""

    def make(architecture: str = "test_efficientnet", seed: int = 0, **kwargs: Any) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = timm.create_model(architecture, **kwargs)
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 1.5)
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias, 0, 0.1)
        return model.eval()

    return make


@pytest.fixture
def save(tmp_path: Path, make_model: MakeModel) -> SaveModel:
    """A checkpoint file: the plain state dict of a random model, or any other content."""

    def save(content: Any = None, name: str = "weights.pth", **kwargs: Any) -> Path:
        path = tmp_path / name
        torch.save(make_model(**kwargs).state_dict() if content is None else content, path)
        return path

    return save


@pytest.fixture
def images() -> torch.Tensor:
    """Two images as anomalib feeds them."""
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
