"""Saliency of a difference lies where images differ."""

import pytest
import timm
import torch

from anomalib_spd.saliency.difference import FeatureDistance, difference_maps


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    encoder: torch.nn.Module = timm.create_model("efficientnet_lite0_in1k", pretrained=True, num_classes=0)
    return encoder.eval()


def test_the_score_is_one_minus_the_cosine(encoder: torch.nn.Module) -> None:
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        references = encoder(images)
        scores = FeatureDistance(encoder, references)(images)
        assert FeatureDistance(encoder, -references[:1])(images)[0] == pytest.approx(2)
    torch.testing.assert_close(scores, torch.zeros(3, 1), atol=1e-6, rtol=0)


def test_maps_are_bright_where_the_image_differs(encoder: torch.nn.Module) -> None:
    good = torch.full((2, 3, 128, 128), 0.5)
    changed = good.clone()
    changed[0, :, 16:48, 16:48] = -2
    changed[1, :, 80:112, 80:112] = -2
    with torch.no_grad():
        references = encoder(good)
    maps = difference_maps(encoder, changed, references, ["blocks.2", "blocks.4"])
    assert maps.shape == (2, 2, 128, 128)
    for at, (own, other) in enumerate([(slice(8, 56), slice(72, 120)), (slice(72, 120), slice(8, 56))]):
        for layer in range(2):
            assert maps[at, layer, own, own].mean() > 4 * maps[at, layer, other, other].mean()


def test_an_unknown_layer_is_refused(encoder: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r"has no layer 'encoder.blocks.9'"):
        difference_maps(encoder, torch.rand(1, 3, 64, 64), torch.ones(1, 1280), ["blocks.9"])
