"""Weights between the backbone's and the trained ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset

from anomalib_spd.local import CrossImageSPD, DenseSPD
from anomalib_spd.losses import mean_square
from anomalib_spd.training.checkpoint import LastCheckpoint

IMAGES = torch.randint(0, 255, (8, 3, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _trained(method: type, folder: Path, max_steps: int = -1, **settings: Any) -> Any:
    """The method after two epochs of two steps on a small network, or fewer steps."""
    seed_everything(0)
    layers = {"layers": ("blocks.1", "blocks.2"), "frozen": ("conv_stem", "bn1", "blocks.0")}
    model = method(backbone="test_efficientnet", pretrained=False, image_size=64, **layers, **settings)
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=2,
        max_steps=max_steps,
        callbacks=[LastCheckpoint(folder, filename="last", enable_version_counter=False, every_n_train_steps=1)],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(IMAGES, torch.zeros(8, dtype=torch.int64)), batch_size=4))
    return model


@pytest.mark.parametrize("max_steps", [-1, 3])
@pytest.mark.parametrize("method", [CrossImageSPD, DenseSPD])
def test_weights_are_interpolated_once_after_the_last_step(method: type, max_steps: int, tmp_path: Path) -> None:
    whole, half = (
        _trained(method, tmp_path / str(each), max_steps, equalize_rms=False, interpolation=each) for each in (1.0, 0.5)
    )
    stored = torch.load(tmp_path / "0.5" / "last.ckpt", weights_only=True)["state_dict"]
    for name, weight in half.encoder.named_parameters():
        assert torch.equal(stored[f"encoder.{name}"], weight)
    moved = 0
    for before, trained, between in zip(
        *(each.parameters() for each in (whole.teacher, whole.encoder, half.encoder)), strict=True
    ):
        assert torch.allclose(between, (before + trained) / 2, atol=1e-7)
        moved += not torch.equal(before, trained)
    assert moved > 10


def test_layers_stay_at_equal_rms(tmp_path: Path) -> None:
    model = _trained(CrossImageSPD, tmp_path, interpolation=0.5)
    with torch.no_grad():
        squares = mean_square(model.features(model.encoder, IMAGES[:, :, 8:72, 8:72] / 255))
    assert float(squares[0]) == pytest.approx(float(squares[1]), rel=0.05)


@pytest.mark.parametrize("interpolation", [0.0, 1.5, -0.5])
def test_only_a_share_of_the_way_is_taken(interpolation: float) -> None:
    with pytest.raises(ValueError, match=r"`interpolation` is above 0 and at most 1 .*Got"):
        CrossImageSPD(backbone="test_efficientnet", pretrained=False, interpolation=interpolation)
