"""What timm, and so anomalib, sees of the registry."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import PretrainedCfg
from torch import Tensor, nn

from anomalib_spd.backbones import Backbone, add, available, find, register, registry_folder
from anomalib_spd.backbones import registry as registry_module

NAME = "efficientnet_lite0_in1k"


def test_the_catalogue_is_registered_with_timm() -> None:
    assert NAME in timm.list_models(pretrained=True)
    model = timm.create_model(NAME, pretrained=True)
    stock = timm.create_model(find(NAME).architecture)
    assert type(model) is type(stock)
    assert model.state_dict().keys() == stock.state_dict().keys()


def test_every_backbone_of_the_catalogue_is_whole() -> None:
    for name, backbone in available().items():
        backbone.verify()
        assert {f.name for f in backbone.folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
        assert backbone.pretrained_cfg["license"]
        provenance = backbone.provenance
        assert provenance.summary(), f"{name}: no recipe"
        for field in ("sha256", "data", "command", "checkpoint", "checkpoint_sha256"):
            assert getattr(provenance, field), f"{name}: no {field}"
        assert f"# {name}\n" in (backbone.folder / "README.md").read_text()


def test_modules_are_timms_and_torchs() -> None:
    for kwargs in ({}, {"features_only": True}):
        model = timm.create_model(NAME, pretrained=True, **kwargs)
        assert {type(module).__module__.split(".")[0] for module in model.modules()} <= {"timm", "torch"}


@pytest.mark.parametrize("name", [NAME, "mine_spd", "mine_spd.tag"])
def test_arguments_of_create_model(name: str, save: Any, images: Tensor) -> None:
    if name != NAME:
        add(name, save(num_classes=7), "test_efficientnet")
    classes = find(name).pretrained_cfg["num_classes"]
    full = timm.create_model(name, pretrained=True).eval()
    assert full(images).shape == (2, classes)

    maps = timm.create_model(name, pretrained=True, features_only=True, out_indices=(1, 3)).eval()(images)
    expected = full.forward_intermediates(images, indices=(1, 3), intermediates_only=True)
    assert [m.shape[-1] for m in maps] == [24, 6]
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))

    other_head = timm.create_model(name, pretrained=True, num_classes=3).eval()
    assert other_head(images).shape == (2, 3)
    assert torch.equal(other_head.forward_features(images), full.forward_features(images))
    no_head = timm.create_model(name, pretrained=True, num_classes=0).eval()
    assert torch.equal(no_head(images), full.forward_head(full.forward_features(images), pre_logits=True))

    grey = timm.create_model(name, pretrained=True, in_chans=1).eval()
    assert grey(images[:, :1]).shape == (2, classes)
    # in the precision that is stored
    weight = full.conv_stem.weight.sum(1, keepdim=True)
    torch.testing.assert_close(grey.conv_stem.weight, weight, atol=2e-3, rtol=0)

    overlay = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"crop_pct": 0.5}).eval()
    assert overlay.pretrained_cfg["crop_pct"] == 0.5
    assert torch.equal(overlay(images), full(images))
    # without its weights, too
    assert timm.create_model(name, features_only=True).feature_info.reduction() == [2, 4, 8, 16, 32]


def test_a_record_of_the_callers_names_its_own_weights(save: Any, make_model: Any, images: Tensor) -> None:
    add("mine_spd", save(), "test_efficientnet")
    path = save(name="other.pth", seed=1)
    cfg = PretrainedCfg(file=str(path), num_classes=1000, classifier="classifier", first_conv="conv_stem")
    for record in (cfg, cfg.to_dict()):
        model = timm.create_model("mine_spd", pretrained=True, pretrained_cfg=record).eval()
        assert torch.equal(model(images), make_model(seed=1)(images))


def test_tags(save: Any) -> None:
    for tag, seed in (("a", 1), ("b", 2)):
        add(f"x_spd.{tag}", save(seed=seed), "test_efficientnet")
    weights = {
        name: timm.create_model(name, pretrained=True).conv_head.weight for name in ("x_spd.a", "x_spd.b", "x_spd")
    }
    assert not torch.equal(weights["x_spd.a"], weights["x_spd.b"])
    assert torch.equal(weights["x_spd"], weights["x_spd.a"])
    # one without a tag is what the bare name means
    add("x_spd", save(seed=3), "test_efficientnet")
    assert not torch.equal(timm.create_model("x_spd", pretrained=True).conv_head.weight, weights["x_spd.a"])
    assert timm.get_pretrained_cfg("x_spd.b").file == str(find("x_spd.b").weights)
    with pytest.raises(ValueError, match=r"no backbone 'x_spd\.c' in the registry .*There are: .*x_spd\.a, x_spd\.b"):
        timm.create_model("x_spd.c", pretrained=True)


def test_tags_may_be_of_different_architectures(save: Any) -> None:
    add("x_spd.a", save(), "test_efficientnet")
    add("x_spd.b", save(architecture="resnet10t"), "resnet10t")
    assert type(timm.create_model("x_spd.a", pretrained=True)).__name__ == "EfficientNet"
    assert type(timm.create_model("x_spd.b", pretrained=True)).__name__ == "ResNet"


def test_names_of_the_modules_own_functions(save: Any) -> None:
    """timm files an entry under its name in our module: it must not replace what has that name there."""
    for name in ("find", "register", "available", "warnings", "default_cfgs"):
        add(name, save(), "test_efficientnet")
        timm.create_model(name, pretrained=True)
    assert registry_module.find is find
    assert registry_module.register is register
    assert sorted(registry_module.__all__) == ["available", "find", "is_stock", "register", "registry_folder"]


def test_damaged_weights_are_not_loaded(save: Any) -> None:
    weights = add("mine_spd", save(), "test_efficientnet").weights
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"are not those that were put there: .* has sha256 \w{64}, its config.json says"
    ):
        timm.create_model("mine_spd", pretrained=True)
    weights.unlink()
    with pytest.raises(ValueError, match=r"weights of backbone 'mine_spd' are missing: there is no file"):
        timm.create_model("mine_spd", pretrained=True)


def _break(config: dict[str, Any], case: str) -> Any:
    match case:
        case "no section":
            del config["anomalib_spd"]
        case "unknown field":
            config["pretrained_cfg"]["of_the_future"] = 1
        case "record":
            config["pretrained_cfg"] = [1]
        case "arguments":
            config["model_args"] = [1]
        case "section":
            config["anomalib_spd"] = {"layers": 3}
        case "list":
            return [1]
    return config


@pytest.mark.parametrize(
    "case", ["no section", "unknown field", "record", "arguments", "section", "list", "json", "none"]
)
def test_broken_folders_are_skipped(case: str, save: Any, registry: Path) -> None:
    add("good_spd", save(), "test_efficientnet")
    folder = add("broken_spd", save(), "test_efficientnet").folder
    config = folder / "config.json"
    if case == "none":
        config.unlink()
    else:
        text = json.dumps(_break(json.loads(config.read_text()), case))
        config.write_text("{" if case == "json" else text)
    with pytest.warns(UserWarning, match=r"Skipped: .*broken_spd is not a backbone's folder: \w+Error"):
        register()
    with pytest.warns(UserWarning, match="Skipped"):
        assert {"good_spd", NAME} <= available().keys()
    timm.create_model("good_spd", pretrained=True)


def test_import_survives_any_registry(save: Any, registry: Path) -> None:
    good = add("good_spd", save(), "test_efficientnet").folder
    for name in ("broken_spd", ".good_spd.1234", NAME, "resnet18"):
        shutil.copytree(good, registry / name)
    (registry / "broken_spd" / "config.json").write_text("{")
    (registry / "note.txt").write_text("no folder")
    code = f"""
import timm, anomalib_spd
for name in ("good_spd", "{NAME}"):
    timm.create_model(name, pretrained=True)
print(len(timm.create_model("resnet18", num_classes=3).fc.weight))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "3\n"
    assert "broken_spd is not a backbone's folder" in run.stderr
    assert f"{NAME} is skipped: the catalogue has a backbone of that name" in run.stderr
    assert "'resnet18' is skipped: timm has a model 'resnet18'" in run.stderr
    assert ".1234" not in run.stderr


def test_unreadable_registry(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.mkdir(parents=True)

    def refuse(_path: Path) -> None:
        raise PermissionError("Permission denied")

    monkeypatch.setattr(
        Path, "iterdir", lambda path: refuse(path) if path == registry else iter(sorted(path.glob("*")))
    )
    with pytest.warns(UserWarning, match="cannot be read: Permission denied"):
        assert NAME in available()


def test_where_the_registry_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANOMALIB_SPD_HOME", "~/my registry")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert registry_folder() == tmp_path / "my registry"
    monkeypatch.delenv("ANOMALIB_SPD_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if sys.platform == "linux":
        assert registry_folder() == tmp_path / "data" / "anomalib_spd"
    assert not any(tmp_path.glob("*registry*"))


def test_find() -> None:
    assert isinstance(find(NAME), Backbone)
    with pytest.raises(ValueError, match=f"no backbone 'none_spd' in the registry. There are: .*{NAME}"):
        find("none_spd")


def test_registering_again_is_silent(save: Any) -> None:
    add("mine_spd", save(), "test_efficientnet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register()
        register()
    assert isinstance(timm.create_model("mine_spd"), nn.Module)
