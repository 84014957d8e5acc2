"""Layers change their size, and the network says what it said."""

from typing import Any

import pytest
import timm
import torch

from anomalib_spd.backbones.layer_scales import rescale_layers


def _network(name: str) -> Any:
    torch.manual_seed(0)
    network: Any = timm.create_model(name).double().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after a training
            torch.nn.init.normal_(module.bias)
            torch.nn.init.uniform_(module.running_mean)
        if hasattr(module, "gamma"):
            torch.nn.init.uniform_(module.gamma)
    return network


FAMILIES = {
    **dict.fromkeys(["efficientnet_lite0", "efficientnet_b0", "mobilenetv2_050", "tf_efficientnetv2_b0"], 1e-6),
    **dict.fromkeys(["resnet18", "test_resnet", "mobilenetv4_conv_small", "regnety_004"], 1e-6),
    "test_convnext": 2e-2,  # up to the epsilon of layer norms, which is large beside random weights
}


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_layers_themselves_change(name: str) -> None:
    network, images = _network(name), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    stages = [info["module"] for info in network.feature_info]
    factors = {stages[-3]: 3.0, stages[-2]: torch.tensor(0.2), stages[-1]: 7.0}
    tolerance = {"rtol": FAMILIES[name], "atol": FAMILIES[name]}
    with torch.no_grad():
        before, maps = network(images), network.forward_intermediates(images, intermediates_only=True)
        rescale_layers(network, factors)
        after, scaled = network(images), network.forward_intermediates(images, intermediates_only=True)
    torch.testing.assert_close(after, before, **tolerance)
    for stage, map_before, map_after in zip(stages, maps, scaled, strict=True):
        torch.testing.assert_close(map_after, map_before * float(factors.get(stage, 1.0)), **tolerance)


def test_the_factor_is_that_of_the_layers_own_output() -> None:
    network, outputs = _network("test_resnet"), []
    network.layer2.register_forward_hook(lambda *_: outputs.append(_[2].clone()))
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        network(images)
        rescale_layers(network, {"layer2": 3.0})
        network(images)
    torch.testing.assert_close(outputs[-1], 3 * outputs[0])


@pytest.mark.parametrize(
    ("name", "scales", "message"),
    [
        ("resnet18", {"layer1": 2.0}, "Cannot rescale layer 'layer1' of ResNet.*Take later layers"),
        ("resnet18", {"layer3": 2.0, "act1": 2.0}, "Cannot rescale layer 'act1' of ResNet"),
        ("test_convnext", {"stages.1": 2.0, "stages.0": 2.0}, "Cannot rescale layer 'stages.0' of ConvNeXt"),
        ("test_vit", {"blocks.4": 2.0}, "Cannot rescale layer 'blocks.4' of VisionTransformer"),
        ("efficientnet_lite0", {"blocks.9": 2.0}, "Expected a stage, one of blocks.0, .*'blocks.9'"),
        ("efficientnet_lite0", {"blocks.2": 0.0}, "a positive factor, got 'blocks.2': 0.0"),
        ("efficientnet_lite0", {"blocks.2": float("nan")}, "a positive factor"),
        ("test_efficientnet", {"blocks.0": 2.0}, "not a sum of projections of its own"),
    ],
)
def test_what_cannot_be_scaled_is_refused_and_nothing_changed(
    name: str, scales: dict[str, float], message: str
) -> None:
    network = _network(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        rescale_layers(network, {"blocks.1": 2.0, **scales} if "efficientnet" in name else scales)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_it_works_within_a_training_of_low_precision() -> None:
    network = _network("test_resnet").float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rescale_layers(network, {"layer2": 3.0})
