"""Cross-image SPD with real defects: their masks take the place of perturbations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from anomalib_spd.cli.main import main
from anomalib_spd.local import CrossImageSPD
from anomalib_spd.losses import local as losses
from tests.local.one_step import learn, model_of, step_of

LABELS = torch.tensor([3] * 6 + [-1] * 2)
MASKS = torch.zeros(8, 1, 112, 112, dtype=torch.uint8)
MASKS[3, :, 40:60, 30:70] = MASKS[4, :, 50:80, 50:60] = 1
IMAGES = torch.randint(0, 120, (8, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IMAGES = IMAGES + 120 * MASKS


class Refused(nn.Module):
    """A perturbation that must not be asked for."""

    def forward(self, images: Tensor) -> Tensor:
        raise AssertionError("perturbed")


def _model(**settings: Any) -> CrossImageSPD:
    model: CrossImageSPD = model_of(CrossImageSPD, **{"image_size": 96, **settings})
    return model


def test_images_with_masks_are_not_perturbed_and_those_with_empty_masks_are() -> None:
    model = _model(local_augmentations=[Refused()])
    _, logged = step_of(model, IMAGES, LABELS, MASKS)
    assert logged["loss_spd"] > 0
    with pytest.raises(AssertionError, match="perturbed"):
        step_of(model, IMAGES, LABELS, MASKS * 0)
    without, with_empty = (step_of(_model(), IMAGES, LABELS, *masks)[0] for masks in ((), (MASKS * 0,)))
    assert torch.equal(without, with_empty)


def test_masks_are_cropped_and_flipped_with_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: dict[str, Tensor] = {}
    detection_loss = losses.detection_loss

    def noted(distance: Tensor, changed: Tensor, *more: Any) -> tuple[Tensor, Tensor]:
        recorded["mask"] = changed
        return detection_loss(distance, changed, *more)

    monkeypatch.setattr(losses, "detection_loss", noted)
    model = _model()
    features = model.features

    def seen(network: Any, images: Tensor) -> list[Tensor]:
        recorded["images"] = images
        return features(network, images)

    monkeypatch.setattr(model, "features", seen)
    for seed in range(4):
        torch.manual_seed(seed)
        model.compare(MASKS.expand(-1, 3, -1, -1).float(), LABELS, MASKS)
        assert recorded["mask"].shape == (3, 1, 96, 96)
        assert torch.equal(recorded["images"][-3:, :1], recorded["mask"])
        assert recorded["mask"].any()


def test_the_gradient_puts_defects_before_false_alarms() -> None:
    first, logged = learn(_model(eta=10.0), IMAGES, LABELS, MASKS)
    assert logged["loss_spd"] < 0.8 * first["loss_spd"]
    assert logged["ranking_accuracy"] >= first["ranking_accuracy"]


def _write(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Write two categories with drawn defects, two without, and photographs."""
    draws = np.random.default_rng(0)
    mask = np.zeros((48, 48))
    mask[16:32, 8:40] = 255
    for number in range(4):
        for category in ("gear", "nut"):
            folder = tmp_path / "defects" / category
            texture = draws.integers(0, 120, (48, 48, 3))
            _write(folder / "train" / "good" / f"{number}.png", draws.integers(0, 120, (48, 48, 3)))
            _write(folder / "test" / "dent" / f"{number}.png", np.maximum(texture, mask[..., None]))
            _write(folder / "ground_truth" / "dent" / f"{number}_mask.png", mask)
        for folder in (tmp_path / "normal" / "tile", tmp_path / "normal" / "wood", tmp_path / "photographs"):
            _write(folder / f"{number}.png", draws.integers(0, 256, (48, 48, 3)))
    return tmp_path


@pytest.mark.parametrize("with_defects", [True, False])
def test_the_recipe_trains_a_backbone(sets: Path, tmp_path: Path, with_defects: bool) -> None:
    """With defects of all categories but one, as in a judgement by it; and on good images alone."""
    defects = ("--data.root", str(sets / "defects"), "--data.defect_share", "0.6", "--data.weights={nut: 0}")
    run = tmp_path / "run"
    arguments = [
        *(
            "pretrain",
            "--config",
            "pretrain/cross_image_spd_real.yaml",
            "--model.init_args.backbone",
            "test_efficientnet",
        ),
        *("--model.init_args.pretrained", "false", "--model.init_args.image_size", "32"),
        *("--model.init_args.layers=[blocks.1,blocks.2]", "--model.init_args.frozen=[conv_stem,bn1,blocks.0]"),
        *("--data.init_args.normal", str(sets / "normal"), *(defects if with_defects else ())),
        *("--data.init_args.batch_size", "4", "--data.init_args.batches", "6"),
        *("--data.init_args.replay_images", str(sets / "photographs"), "--data.init_args.replay_per_batch", "1"),
        *("--data.init_args.image_size", "40", "--data.init_args.num_workers", "0"),
        *("--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(run)),
    ]
    assert main([*arguments, "--trainer.fast_dev_run", "true"]) == 0
    assert main(arguments) == 0
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
