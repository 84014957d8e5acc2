"""What is read of a network, and what of it is trained."""

import copy
from typing import Any

import pytest
import timm
import torch
from anomalib.models.components import TimmFeatureExtractor

from anomalib_spd.backbones.layer_reader import LayerReader
from anomalib_spd.backbones.loading import load

CASES = [
    ("test_efficientnet", ["blocks.1", "blocks.2"], ["blocks.3", "blocks.4", "conv_head", "classifier"]),
    ("test_efficientnet", ["blocks.0"], ["blocks.1", "blocks.4", "conv_head", "classifier"]),
    ("test_efficientnet", ["blocks.0", "blocks.4"], ["conv_head", "classifier"]),
    ("test_resnet", ["layer1", "layer3"], ["layer4", "fc"]),
    ("test_convnext", ["stages.1", "stages.2"], ["stages.3", "head.fc"]),
]


def network(name: str) -> Any:
    """A random one, also where timm begins with zeros, behind which nothing matters."""
    torch.manual_seed(0)
    model = timm.create_model(name)
    with torch.no_grad():
        for each in model.parameters():
            if not each.any():
                each.normal_()
    return model


@pytest.mark.parametrize(("name", "layers", "behind"), CASES)
def test_the_maps_are_those_that_detectors_read(name: str, layers: list[str], behind: list[str]) -> None:
    model = network(name).eval()
    pyramid = timm.create_model(name, features_only=True).eval()
    # where timm makes a copy of a stage it gives it a name with a line
    named = {"stem_" if hasattr(pyramid, "stem_0") else "stem.": "stem.", "stages_": "stages."}
    state = model.state_dict()
    for ours, theirs_ in named.items():
        state |= {key.replace(theirs_, ours, 1): each for key, each in state.items() if key.startswith(theirs_)}
    assert not pyramid.load_state_dict(state, strict=False).missing_keys
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        maps, theirs = LayerReader(name, layers)(model, images), pyramid(images)
    names = pyramid.feature_info.module_name()
    assert len(maps) == len(layers)
    for layer, each in zip(layers, maps, strict=True):
        torch.testing.assert_close(each, theirs[names.index(layer)])


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_dinov2", "vit_small_plus_patch16_dinov3"])
def test_the_tokens_are_those_that_detectors_read(name: str) -> None:
    layers, patch = ["blocks.1", "blocks.4"], 14 if "14" in name else 16
    model = load(name, pretrained=False).eval()
    extractor = TimmFeatureExtractor(name, layers, pre_trained=False)
    extractor.feature_extractor.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 6 * patch, 4 * patch)
    passed: list[str] = []
    model.get_submodule("blocks.5").register_forward_pre_hook(lambda *_: passed.append("blocks.5"))
    with torch.no_grad():
        maps = LayerReader(name, layers)(model, images)
    assert not passed
    assert all(torch.equal(*pair) for pair in zip(maps, extractor(images).values(), strict=True))
    assert maps[0].shape == (2, model.num_features, 6, 4)


def test_what_is_trained_of_a_transformer() -> None:
    model, reader = load("test_vit", pretrained=False), LayerReader("test_vit", ["blocks.2", "blocks.3"])
    before = reader.parts_before(model)
    assert {"cls_token", "pos_embed", "patch_embed", "blocks.1"} <= {*before}
    reader.freeze_unused(model, before)
    assert {
        name.rpartition(".")[0].split(".attn")[0].split(".mlp")[0].split(".norm")[0] for name in trained(model)
    } == {
        "blocks.2",
        "blocks.3",
        "norm",
    }


@pytest.mark.parametrize(("name", "layers", "behind"), CASES)
def test_the_pass_ends_behind_the_last_of_them(name: str, layers: list[str], behind: list[str]) -> None:
    model, passed = network(name).eval(), []
    for part in [layers[-1], *behind]:
        model.get_submodule(part).register_forward_pre_hook(lambda *_, part=part: passed.append(part))
    LayerReader(name, layers)(model, torch.zeros(1, 3, 64, 64))
    # a hook on a stage does not see its blocks called one by one
    assert not set(passed) & set(behind)
    model(torch.zeros(1, 3, 64, 64))
    assert set(behind) & set(passed)


@pytest.mark.parametrize(("name", "layers", "behind"), CASES)
def test_what_is_trained_is_what_the_maps_are_made_of(name: str, layers: list[str], behind: list[str]) -> None:
    model, reader = network(name), LayerReader(name, layers)
    before = copy.deepcopy(model.state_dict())
    reader.freeze_unused(model)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())

    # a weight that matters changes the maps when it is changed
    images, matter = torch.randn(1, 3, 32, 32), set()
    with torch.no_grad():
        unchanged = reader(model, images)
        for key, each in model.named_parameters():
            kept = each.clone()
            each.add_(torch.randn_like(each))
            if any(not torch.equal(*pair) for pair in zip(reader(model, images), unchanged, strict=True)):
                matter.add(key)
            each.copy_(kept)
    assert trained(model) == matter
    assert not any(key.startswith(f"{part}.") for key in matter for part in behind)

    stem = {"test_efficientnet": ("conv_stem.", "bn1."), "test_resnet": ("conv1.", "bn1."), "test_convnext": ("stem.",)}
    reader.freeze_unused(model, [part[:-1] for part in stem[name]])
    assert trained(model) == {key for key in matter if not key.startswith(stem[name])} < matter


def trained(model: Any) -> set[str]:
    return {key for key, each in model.named_parameters() if each.requires_grad}


def test_what_was_frozen_before_stays_so() -> None:
    model = network("test_efficientnet")
    model.blocks[1].requires_grad_(False)
    LayerReader("test_efficientnet", ["blocks.2"]).freeze_unused(model)
    parts = ("conv_stem.", "bn1.", "blocks.0.", "blocks.2.")
    assert trained(model) == {key for key, _ in model.named_parameters() if key.startswith(parts)}


def test_a_layer_that_is_read_can_be_frozen() -> None:
    model = network("test_efficientnet")
    reader = LayerReader("test_efficientnet", ["blocks.1", "blocks.2"])
    reader.freeze_unused(model, ["conv_stem", "bn1", "blocks.0", "blocks.1"])
    assert trained(model) == {key for key, _ in model.named_parameters() if key.startswith("blocks.2.")}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["blocks.1", "blocks.9"], r"no layer 'blocks\.9', did you mean 'blocks\..'\?; it has: blocks\.0, "),
        (["blocks.2", "blocks.1"], r"from first to last: \['blocks.1', 'blocks.2'\]"),
        (["blocks.1", "blocks.1"], "once each"),
    ],
)
def test_layers_that_are_not_there_or_not_in_order_are_refused(layers: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerReader("test_efficientnet", layers)


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (
            ["conv_stem", "blocks.9"],
            r"EfficientNet has no part 'blocks\.9' to freeze\. It has: conv_stem, bn1, blocks,",
        ),
        (["conv_stem", "bn1", "blocks"], r"Nothing of blocks\.1, blocks\.2 is left to train"),
    ],
)
def test_parts_that_cannot_be_frozen_are_refused(frozen: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerReader("test_efficientnet", ["blocks.1", "blocks.2"]).freeze_unused(network("test_efficientnet"), frozen)
