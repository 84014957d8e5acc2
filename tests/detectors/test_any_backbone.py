"""Detectors that stock anomalib ties to a list of names: the same for those, and what they refuse of others."""

from types import SimpleNamespace
from typing import Any

import anomalib.models
import pytest
import timm
import torch
import torchvision

from anomalib_spd import detectors
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor

SIZE = 64
#: arguments that stock takes too
STOCK: dict[str, dict[str, Any]] = {
    "Cfa": {"gamma_d": 2},
    "Fastflow": {"pre_trained": False, "flow_steps": 2},
    "Uflow": {"flow_steps": 1},
}


@pytest.fixture(autouse=True)
def _without_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: create(*args, **{**kwargs, "pretrained": False}))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: SimpleNamespace(DEFAULT=None))


def made(module: Any, name: str, **more: Any) -> Any:
    torch.manual_seed(0)
    settings = {"backbone": "resnet18", "visualizer": False, **STOCK[name], **more}
    return getattr(module, name)(**{"pre_processor": BackbonePreProcessor(SIZE), **settings})


def outputs(detector: Any) -> list[torch.Tensor]:
    """What a detector is trained by, in its own form; CFA's memory is of one image."""
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    if hasattr(detector.model, "initialize_centroid"):
        detector.model.initialize_centroid([SimpleNamespace(image=images)])
    given = detector.model.train()(images)
    return [given] if isinstance(given, torch.Tensor) else [each for part in given for each in torch.atleast_1d(part)]


@pytest.mark.parametrize("name", STOCK)
def test_names_that_stock_knows_give_the_same(name: str) -> None:
    stock, ours = made(anomalib.models, name), made(detectors, name)
    before, after = stock.model.state_dict(), ours.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], each) for key, each in before.items())
    assert all(torch.equal(*pair) for pair in zip(outputs(stock), outputs(ours), strict=True))
    assert ours.hparams["backbone"] == "resnet18"


@pytest.mark.parametrize("name", ["Fastflow", "Uflow"])
def test_layers_that_are_stocks_give_the_same(name: str) -> None:
    stock, ours = made(anomalib.models, name), made(detectors, name, layers=["layer1", "layer2", "layer3"])
    assert ours.hparams["layers"] == ["layer1", "layer2", "layer3"]
    state = stock.model.state_dict()
    renamed = {
        key.replace(".extractor.feature_extractor", "") if name == "Fastflow" else key: key
        for key in ours.model.state_dict()
    }
    ours.model.load_state_dict({key: state[theirs] for theirs, key in renamed.items()})
    for one, other in zip(outputs(stock), outputs(ours), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", STOCK)
def test_layers_are_those_of_three_strides_by_default(name: str) -> None:
    detector = made(detectors, name, backbone="test_efficientnet")
    shapes = (
        {tuple(each.shape[1:]) for each in detector.model.feature_extractor(torch.zeros(1, 3, SIZE, SIZE))}
        if (name != "Cfa")
        else {
            tuple(each.shape[1:]) for each in detector.model.feature_extractor(torch.zeros(1, 3, SIZE, SIZE)).values()
        }
    )
    assert {shape[1] for shape in shapes} == {SIZE // 4, SIZE // 8, SIZE // 16}


@pytest.mark.parametrize("name", ["Cfa", "Fastflow"])
def test_transformers_too(name: str) -> None:
    detector = made(detectors, name, backbone="test_vit", layers=["blocks.2", "blocks.4"])
    assert all(each.isfinite().all() for each in outputs(detector))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Cfa", {"layers": ["blocks.9"]}, "no layer 'blocks.9'"),
        ("Fastflow", {"layers": ["blocks.9"]}, "no layer 'blocks.9'"),
        ("Fastflow", {"pre_processor": False}, "Fastflow needs the size of images: give a pre_processor"),
        ("Uflow", {"pre_processor": False}, "U-Flow needs the size of images: give a pre_processor"),
        ("Uflow", {"layers": ["blocks.1", "blocks.3"]}, r"half the stride of the next.*have \[4, 16\]"),
        ("Uflow", {"pre_processor": BackbonePreProcessor(60)}, "whole strides of 16 px. Got 60 x 60 px"),
        ("Uflow", {"backbone": "test_vit"}, "Layers of a transformer have one stride. test_vit is one: give a CNN"),
    ],
)
def test_what_cannot_be_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(detectors, name, **{"backbone": "test_efficientnet", **settings})
