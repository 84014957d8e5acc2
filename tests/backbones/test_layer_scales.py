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
    return network


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b0", "mobilenetv2_050", "tf_efficientnetv2_b0"])
def test_only_the_layers_themselves_change(name: str) -> None:
    network, images = _network(name), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    stages = [int(info["module"].removeprefix("blocks.")) for info in network.feature_info]
    factors = {f"blocks.{stages[-3]}": 3.0, f"blocks.{stages[-2]}": torch.tensor(0.2), f"blocks.{stages[-1]}": 7.0}
    with torch.no_grad():
        before, maps = network(images), network.forward_intermediates(images, intermediates_only=True)
        rescale_layers(network, factors)
        after, scaled = network(images), network.forward_intermediates(images, intermediates_only=True)
    torch.testing.assert_close(after, before)
    for stage, map_before, map_after in zip(stages, maps, scaled, strict=True):
        factor = float(factors.get(f"blocks.{stage}", 1.0))
        torch.testing.assert_close(map_after, map_before * factor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "scales", "message"),
    [
        ("resnet18", {"layer1": 2.0}, "Cannot rescale the layers of ResNet"),
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
        rescale_layers(network, {"blocks.1": 2.0, **scales} if name != "resnet18" else scales)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[key]), key
