"""The classifiers that guide the swaps: which layers, where their maps are kept, and whose they are."""

from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import VGG, vgg

from anomalib_spd.backbones import add
from anomalib_spd.backbones import saliency as classifiers
from anomalib_spd.backbones.saliency import draw_saliency_maps, saliency_cache, saliency_maps
from anomalib_spd.saliency import LayerCAM, SaliencyCache
from anomalib_spd.saliency.layer_cam import EFFICIENTNET_LITE0_STRIDES, VGG16_POOLS
from tests.benchmark.grids import add_to_registry

STAGES = tuple(f"blocks.{stage}" for stage in range(5))


def images(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_each_stride_has_a_map_unless_layers_are_named(home: Path) -> None:
    assert saliency_cache("small_b").cam.layers == STAGES
    assert saliency_cache("small_b", ["blocks.3", "blocks.1"]).cam.layers == ("blocks.3", "blocks.1")
    assert saliency_cache("efficientnet_lite0_in1k").cam.layers == EFFICIENTNET_LITE0_STRIDES


def test_a_vgg_has_the_papers_layers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # VGG16's layers, of few channels
    plan: Any = [4 if isinstance(each, int) else each for each in vgg.cfgs["vgg16"]]
    thin = VGG(plan, mlp_ratio=0.01)
    thin.pretrained_cfg = timm.get_pretrained_cfg("vgg16.tv_in1k").to_dict()
    monkeypatch.setattr(classifiers, "load", lambda name: thin)
    cache = saliency_cache("vgg16.tv_in1k", folder=tmp_path)
    assert cache.cam.layers == VGG16_POOLS
    assert cache(images()).shape == (3, 5, 64, 64)


def test_maps_are_of_the_pretrained_network_and_are_kept_in_the_home(home: Path) -> None:
    maps = saliency_cache("small_b")(images())
    expected = LayerCAM(timm.create_model("small_b", pretrained=True).eval(), STAGES)(images())
    assert torch.equal(maps, expected.half().float())
    files = list((home / ".saliency").rglob("*.safetensors"))
    assert len(files) == 3
    # the registry passes over them
    assert "small_b" in timm.list_models("small_*")
    stored = torch.stack(sorted((load_file(file)["maps"] for file in files), key=lambda each: each.sum().item()))
    assert torch.equal(stored.float(), torch.stack(sorted(maps, key=lambda each: each.half().sum().item())))


def test_another_network_under_the_same_name_looks_for_itself(home: Path, tmp_path: Path) -> None:
    before = saliency_cache("small_a")(images())
    kept = {path: path.read_bytes() for path in (home / ".saliency").rglob("*.safetensors")}
    (home / "small_a").rename(tmp_path / "gone")
    add_to_registry("small_a", 7, tmp_path)
    after = saliency_cache("small_a")(images())
    own = LayerCAM(timm.create_model("small_a", pretrained=True).eval(), STAGES)(images())
    assert torch.equal(after, own.half().float())
    assert not torch.equal(after, before)
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len(list((home / ".saliency").rglob("*.safetensors"))) == 2 * len(kept)


def test_damaged_maps_are_computed_again(home: Path) -> None:
    maps = saliency_cache("small_b")(images(1))
    (file,) = (home / ".saliency").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.warns(UserWarning, match=rf"{file.name} are damaged and computed again"):
        assert torch.equal(saliency_cache("small_b")(images(1)), maps)
    assert torch.equal(load_file(file)["maps"].float(), maps[0])


def test_what_cannot_look_is_refused(home: Path, tmp_path: Path) -> None:
    features = timm.create_model("test_efficientnet", num_classes=0).state_dict()
    torch.save({f"encoder.{name}": each for name, each in features.items()}, tmp_path / "features.pth")
    add("small_features", tmp_path / "features.pth", "test_efficientnet")
    with pytest.raises(ValueError, match=r"'small_features' has no classifier.*Give one that has"):
        saliency_cache("small_features")
    with pytest.raises(ValueError, match=r"EfficientNet has no layer 'blocks\.7'. Near it: blocks\."):
        saliency_cache("small_b", ["blocks.7"])
    with pytest.raises(RuntimeError, match=r"Unknown model \(nonsense\)"):
        saliency_cache("nonsense")


def test_a_folder_of_ones_own(home: Path, tmp_path: Path) -> None:
    cache = saliency_cache("small_b", folder=tmp_path / "maps")
    assert isinstance(cache, SaliencyCache)
    cache(images())
    assert len(list((tmp_path / "maps").rglob("*.safetensors"))) == 3
    assert not (home / ".saliency").exists()


def test_maps_of_a_batch_are_those_of_each_image_on_one_thread() -> None:
    before, seen = torch.get_num_threads(), []

    def saliency(images: torch.Tensor) -> torch.Tensor:
        seen.append((len(images), torch.get_num_threads(), torch.is_autocast_enabled("cpu")))
        return images.mean(1, keepdim=True) * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)

    try:
        torch.set_num_threads(2)
        with torch.autocast("cpu", torch.bfloat16):
            maps = saliency_maps(cast(Any, saliency), images(4))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [(1, 1, False)] * 4
    assert torch.equal(maps, saliency(images(4)))


def test_each_image_is_given_a_map_of_its_own_of_a_level_that_is_drawn() -> None:
    levels = torch.arange(3.0).view(1, 3, 1, 1)

    def saliency(images: torch.Tensor) -> torch.Tensor:
        return images[:, :1] + 100 * levels

    batch, drawn = images(5), []
    for _ in range(40):
        maps = draw_saliency_maps(cast(Any, saliency), batch)
        assert maps.shape == (5, 64, 64)
        level = ((maps - batch[:, 0]) / 100).mean((1, 2)).round()
        torch.testing.assert_close(maps, batch[:, 0] + 100 * level.view(5, 1, 1))
        drawn.append(level)
    counts = torch.stack(drawn)
    assert all(set(column.tolist()) == {0, 1, 2} for column in counts.T)
    assert any(len(row.unique()) > 1 for row in counts)  # not one for all
