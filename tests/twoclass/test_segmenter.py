"""The segmenter: any size in, the same size out, whole or in tiles; its loss is the focal loss of its masks."""

import sys
from typing import Any

import pytest
import timm
import torch
from anomalib.data import ImageBatch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from anomalib_spd.twoclass import Segmenter, segmenter
from anomalib_spd.twoclass.segmenter import SegmenterNetwork

pytest.importorskip("segmentation_models_pytorch", reason="needs the extra [twoclass]")
SMALL = {"decoder_channels": [16, 16, 8, 8, 8]}
SMALL_MODEL: dict[str, Any] = {"backbone": "test_efficientnet", "pretrained": False, "architecture_args": SMALL}


def batch(size: int = 4, height: int = 64, width: int = 64) -> ImageBatch:
    masks = torch.zeros(size, height, width, dtype=torch.bool)
    masks[::2, 10:20, 5:30] = True
    return ImageBatch(image=torch.rand(size, 3, height, width), gt_label=masks.flatten(1).any(1), gt_mask=masks)


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (40, 130), (8, 8)])
def test_maps_are_as_large_as_images(size: tuple[int, int]) -> None:
    network = SegmenterNetwork(**SMALL_MODEL).eval()
    logits, predictions = network.predict(torch.rand(2, 3, *size))
    assert logits.shape == predictions.anomaly_map.shape == predictions.pred_mask.shape == (2, 1, *size)
    torch.testing.assert_close(predictions.anomaly_map, logits.sigmoid())
    torch.testing.assert_close(predictions.pred_score, predictions.anomaly_map.flatten(1).amax(1))
    assert torch.equal(predictions.pred_mask, predictions.anomaly_map > 0.5)
    assert torch.equal(predictions.pred_label, predictions.pred_score > 0.5)


def test_logits_of_a_padded_image_are_those_of_the_image_with_its_border_repeated() -> None:
    network = SegmenterNetwork(**SMALL_MODEL).eval()
    images = torch.rand(1, 3, 50, 64)
    padded = torch.cat([images, images[:, :, -1:].expand(-1, -1, 14, -1)], dim=2)
    torch.testing.assert_close(network.logits(images), network.logits(padded)[:, :, :50])


@pytest.mark.parametrize("size", [(96, 96), (130, 64), (200, 150), (40, 200)])
def test_tiles_are_put_together_as_they_were_taken(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    network = SegmenterNetwork(**SMALL_MODEL, tile=64).eval()
    seen = []

    def brightness(images: Tensor) -> Tensor:
        seen.append(images.shape)
        return images.mean(1, keepdim=True)

    # a network that looks at one pixel gives the same whole or in tiles
    monkeypatch.setattr(network.network, "forward", brightness)
    images = torch.rand(2, 3, *size)
    torch.testing.assert_close(network.logits(images), images.mean(1, keepdim=True))
    assert {shape[-2:] for shape in seen} == {(64, 64)}
    assert max(shape[0] for shape in seen) == 2


def test_an_image_no_larger_than_a_tile_passes_whole() -> None:
    torch.manual_seed(0)
    tiled = SegmenterNetwork(**SMALL_MODEL, tile=64).eval()
    torch.manual_seed(0)
    whole = SegmenterNetwork(**SMALL_MODEL).eval()
    images = torch.rand(1, 3, 64, 60)
    torch.testing.assert_close(tiled.logits(images), whole.logits(images))


def test_training_crops_tiles_and_keeps_images_and_masks_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Segmenter(**SMALL_MODEL, tile=32)
    large = batch(32, 48, 80)
    large.gt_mask[:] = torch.rand(32, 48, 80) > 0.5
    # the mask can be read off the image
    large.image[:] = large.gt_mask[:, None].float()
    seen = []
    monkeypatch.setattr(
        model.model, "logits", lambda images: seen.append(images) or torch.zeros(len(images), 1, 32, 32)
    )
    monkeypatch.setattr(segmenter, "sigmoid_focal_loss", lambda logits, masks, *_, **_settings: seen.append(masks))
    model.training_loss(large)
    assert seen[0].shape == (32, 3, 32, 32)
    assert torch.equal(seen[0][:, :1], seen[1])
    assert len(torch.unique(seen[1].flatten(1), dim=0)) == 32


def test_without_tiles_images_and_masks_are_flipped_together_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, seen = Segmenter(**SMALL_MODEL), batch(64), []
    monkeypatch.setattr(model.model, "logits", lambda given: seen.append(given) or torch.zeros(64, 1, 64, 64))
    monkeypatch.setattr(
        segmenter, "sigmoid_focal_loss", lambda logits, masks, *_, **_settings: seen.append(masks[:, 0].bool())
    )
    model.training_loss(images)
    flipped = (seen[0] == images.image.flip(-1)).flatten(1).all(1)
    same = (seen[0] == images.image).flatten(1).all(1)
    assert (same | flipped).all()
    assert 16 <= int(flipped.sum()) <= 48
    assert torch.equal(seen[1], torch.where(flipped[:, None, None], images.gt_mask.flip(-1), images.gt_mask))


def test_the_loss_is_the_focal_loss() -> None:
    model, images, logits = (
        Segmenter(**SMALL_MODEL, focal_alpha=0.7, focal_gamma=1.5),
        batch(),
        torch.randn(4, 1, 64, 64),
    )
    expected = sigmoid_focal_loss(logits, images.gt_mask[:, None].float(), 0.7, 1.5, reduction="mean")
    torch.testing.assert_close(model.criterion(logits, images), expected)


def test_masks_are_needed() -> None:
    with pytest.raises(ValueError, match="Masks are needed"):
        Segmenter(**SMALL_MODEL).training_loss(ImageBatch(torch.rand(2, 3, 64, 64), gt_label=torch.tensor([0, 1])))


@pytest.mark.parametrize("architecture", ["unetplusplus", "fpn", "DeepLabV3Plus"])
def test_other_architectures_by_name(architecture: str) -> None:
    network = SegmenterNetwork("test_efficientnet", False, architecture).eval()
    assert network.logits(torch.rand(1, 3, 64, 96)).shape == (1, 1, 64, 96)


def test_it_starts_from_the_backbone() -> None:
    model = Segmenter("efficientnet_lite0_spd")
    named = timm.create_model("efficientnet_lite0_spd", pretrained=True, features_only=True).state_dict()
    own = model.model.network.encoder.model.state_dict()
    assert own.keys() == named.keys()
    assert all(torch.equal(own[name], named[name]) for name in named)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "unett"}, r"no architecture 'unett'. It has: unet, "),
        ({"tile": 100}, "`tile` is a multiple of 32 pixels. Got 100"),
        ({"steps": 0}, "`steps` and `learning_rate` are positive.* Got 0, "),
    ],
)
def test_argument_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Segmenter(**{**SMALL_MODEL, **changes})


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anomalib_spd\[twoclass\]'"):
        Segmenter(**SMALL_MODEL)
