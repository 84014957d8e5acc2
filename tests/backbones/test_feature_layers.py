"""The check of feature layers by their names."""

import pytest

from anomalib_spd.backbones.feature_layers import check_layers, layers

NAME = "efficientnet_lite0_in1k"


@pytest.mark.parametrize("layers", [["blocks.2", "blocks.4"], ["blocks.6"], [1, 2]])
def test_layers_that_the_backbone_has(layers: list[str | int]) -> None:
    check_layers(NAME, layers)


@pytest.mark.parametrize("backbone", ["test_vit", "vit_small_patch14_dinov2", "vit_small_plus_patch16_dinov3"])
def test_a_transformer_has_blocks(backbone: str) -> None:
    check_layers(backbone, ["blocks.0", "blocks.4"])
    check_layers(backbone, [0, 4])
    (last,) = layers(backbone)
    check_layers(backbone, ["blocks.4", last])
    with pytest.raises(ValueError, match=r"no layer 'blocks\.99'.*it has: blocks\.0, blocks\.1"):
        check_layers(backbone, ["blocks.0", "blocks.99"])
    with pytest.raises(ValueError, match="from first to last"):
        check_layers(backbone, ["blocks.4", "blocks.0"])


@pytest.mark.parametrize("backbone", ["mobilevit_xxs", "efficientvit_b0", "repvit_m0_9"])
def test_a_name_by_which_anomalib_takes_a_cnn_for_a_transformer_is_refused(backbone: str) -> None:
    with pytest.raises(ValueError, match=rf"^The name '{backbone}' contains 'vit'.* Take a name without it\.$"):
        check_layers(backbone, ["stages.1"])


@pytest.mark.parametrize("backbone", ["eva02_tiny_patch14_224", "deit_tiny_patch16_224"])
def test_a_transformer_that_anomalib_would_take_for_a_cnn_is_refused(backbone: str) -> None:
    with pytest.raises(ValueError, match="does not contain 'vit'"):
        check_layers(backbone, ["blocks.1"])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            ["blocks.2", "block.4"],
            r"no layer 'block\.4', did you mean 'blocks\.4'\?; it has: blocks\.0, blocks\.1, blocks\.2, blocks\.4, blocks\.6",
        ),
        (["layer2", "layer3"], "no layer 'layer2', 'layer3'"),
        (["blocks.4", "blocks.2"], r"from first to last: \['blocks\.2', 'blocks\.4'\]"),
        (["blocks.2", "blocks.2"], "once each"),
    ],
)
def test_layers_that_anomalib_would_drop_or_confuse(layers: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_layers(NAME, layers)


@pytest.mark.parametrize("backbone", ["mambaout_femto", "sequencer2d_s", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("layers", [["stages_0"], [1, 2]])
def test_maps_that_are_channels_last_are_refused(backbone: str, layers: list[str | int]) -> None:
    with pytest.raises(
        ValueError, match=rf"^{backbone} gives maps of the form \(B, H, W, C\), .* such as a ConvNeXt\.$"
    ):
        check_layers(backbone, layers)


def test_a_network_without_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="timm gives no feature maps of inception_next_none"):
        check_layers("inception_next_none", ["stages_0"])
