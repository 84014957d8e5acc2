"""What timm, and so anomalib, sees of the registry."""

import json
import os
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


@pytest.mark.parametrize(
    "architecture", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "test_resnet", "test_convnext"]
)
@pytest.mark.parametrize("arguments", [{}, {"in_chans": 1}, {"out_indices": (1, 2)}])
def test_feature_maps_are_timms_own_without_its_warning(
    architecture: str, arguments: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(timm.create_model(architecture).state_dict(), tmp_path / "weights.pth")
    add("mine", tmp_path / "weights.pth", architecture)
    record = find("mine").timm_cfg().to_dict()
    made = []
    caplog.clear()
    for name, more in (("mine", {}), (architecture, {"pretrained_cfg": record})):
        torch.manual_seed(0)
        made.append((timm.create_model(name, pretrained=True, features_only=True, **more, **arguments), torch.rand(1)))
        if name == "mine":
            assert not [each.message for each in caplog.records if "Unexpected keys" in each.message]
    (ours, drawn), (stock, drawn_by_timm) = made
    assert drawn == drawn_by_timm
    assert type(ours) is type(stock)
    assert ours.pretrained_cfg == stock.pretrained_cfg
    tensors = stock.state_dict()
    assert ours.state_dict().keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in ours.state_dict().items())


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
    assert sorted(registry_module.__all__) == [*("available", "find", "is_stock", "register", "registry_folder")]


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
    assert f"{NAME}: the catalogue has a backbone of that name" in run.stderr
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
    with pytest.raises(ValueError, match=f"no backbone 'none_spd' in the registry .*There are: .*{NAME}"):
        find("none_spd")


def test_registering_again_is_silent(save: Any) -> None:
    add("mine_spd", save(), "test_efficientnet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register()
        register()
    assert isinstance(timm.create_model("mine_spd"), nn.Module)


WRONG_TYPES: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"architecture": ["resnet18"]}, "architecture is"),
    "unknown architecture": ({"architecture": "resnet19x"}, "'resnet19x', which timm does not have"),
    "own architecture": ({"architecture": "broken_spd"}, "'broken_spd', which timm does not have"),
    "num_classes": ({"num_classes": "many"}, "num_classes is 'many', expected a whole number"),
    "negative classes": ({"num_classes": -1}, "num_classes is '-1'"),
    "model_args": ({"model_args": "wide"}, "model_args is 'wide', expected arguments"),
    "weights as an argument": ({"model_args": {"pretrained": True}}, "model_args is"),
    "mean": ({"pretrained_cfg": {"mean": "0.5"}}, "mean is '0.5', expected one number per channel"),
    "std": ({"pretrained_cfg": {"std": [1, 2]}}, "std is"),
    "input_size": ({"pretrained_cfg": {"input_size": [3, "224", 224]}}, "input_size is"),
    "license": ({"pretrained_cfg": {"license": 5}}, "license is '5', expected text"),
    "origin": ({"pretrained_cfg": {"origin_url": {}}}, "origin_url is"),
    "classifier": ({"pretrained_cfg": {"classifier": 7}}, "classifier is"),
    "layers": ({"anomalib_spd": {"layers": [1, 2]}}, "layers is"),
    "no layers": ({"anomalib_spd": {"layers": []}}, "layers is"),
    "layers of text": ({"anomalib_spd": {"layers": ["a b\x1b[31m"]}}, "layers is"),
    "n_features": ({"anomalib_spd": {"n_features": "100"}}, "n_features is '100', expected a positive whole number"),
    "provenance": ({"anomalib_spd": {"provenance": []}}, "AttributeError"),
    "sha256": ({"anomalib_spd": {"provenance": {"sha256": 1}}}, "sha256 is '1', expected text"),
    "settings": ({"anomalib_spd": {"provenance": {"settings": "eta"}}}, "settings is 'eta', expected a mapping"),
}


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_the_name_of_a_backbone_with_wrong_types_says_so(case: str, save: Any) -> None:
    folder = add("broken_spd", save(), "test_efficientnet").folder
    change, message = WRONG_TYPES[case]
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        merged = isinstance(value, dict) and isinstance(config.get(key), dict)
        config[key] = config[key] | value if merged else value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=message):
        register()
    for ask in (find, timm.create_model):
        with pytest.raises(ValueError, match=f"'broken_spd' cannot be used: .*{message}") as raised:
            ask("broken_spd")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("arguments", [{"no_such": 1}, {"channel_multiplier": "wide"}])
def test_the_name_of_a_backbone_with_arguments_that_timm_refuses_says_so(arguments: dict[str, Any], save: Any) -> None:
    folder = add("broken_spd", save(), "test_efficientnet").folder
    config = json.loads((folder / "config.json").read_text()) | {"model_args": arguments}
    (folder / "config.json").write_text(json.dumps(config))
    register()
    for more in ({}, {"features_only": True}):
        with pytest.raises(ValueError, match="'broken_spd' cannot be used: timm cannot build test_efficientnet with"):
            timm.create_model("broken_spd", **more)


def test_an_argument_of_the_callers_is_their_own_error(save: Any) -> None:
    add("good_spd", save(), "test_efficientnet")
    with pytest.raises(TypeError, match="no_such"):
        timm.create_model("good_spd", no_such=1)


def test_whatever_is_in_a_folder_the_import_survives(save: Any, registry: Path) -> None:
    good = add("good_spd", save(), "test_efficientnet").folder
    text = (good / "config.json").read_text()
    files: dict[str, bytes] = {
        "deep_spd": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "bytes_spd": b"\xff\xfe\x00",
        "number_spd": b"9" * 10_000,
        "huge_spd": b" " * (2**24 + 1),
        "a.b.c": text.encode(),
        "odd\nname\x1b[31m": text.encode(),
        "tagged_spd.b": b"{",
        "__MACOSX": b"{",
        "@eaDir": b"{",
    }
    for name, content in files.items():
        (registry / name).mkdir()
        (registry / name / "config.json").write_bytes(content)
    (registry / "folder_spd" / "config.json").mkdir(parents=True)
    (registry / "pipe_spd").mkdir()
    os.mkfifo(registry / "pipe_spd" / "config.json")
    (registry / "loop_spd").symlink_to(registry / "loop_spd")
    names = [name for name in (*files, "folder_spd", "pipe_spd") if name.endswith(("_spd", ".b"))]
    code = f"""
import timm, anomalib_spd
timm.create_model("good_spd", pretrained=True)
for name in {names}:
    try:
        timm.create_model(name)
    except ValueError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    lines = run.stdout.splitlines()
    assert len(lines) == len(names)
    for name, line in zip(names, lines, strict=True):
        assert line.startswith(f"Backbone '{name}' cannot be used: ")
    for reason in ("RecursionError", "it is no file", "larger than", "JSONDecodeError", "UnicodeDecodeError"):
        assert reason in run.stdout
    assert "\x1b" not in run.stdout + run.stderr
    assert "eaDir" not in run.stderr
    assert "MACOSX" not in run.stderr


def test_weights_are_never_those_of_elsewhere(save: Any) -> None:
    """A record may say where timm would download others."""
    folder = add("mine_spd", save(), "test_efficientnet").folder
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"source": "hf-hub", "hf_hub_id": "nobody/nothing", "url": "https://nowhere.invalid/w"}
    config["pretrained_cfg"] |= {"custom_load": True, "state_dict": {"a": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    register()
    timm.create_model("mine_spd", pretrained=True)


@pytest.mark.parametrize("home", [None, "~/registry", "/proc/registry", "/dev/null"])
def test_import_without_a_home(home: str | None, tmp_path: Path) -> None:
    """As in a container that runs as a user whom nobody knows, or whose home is read-only."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HOME", "XDG", "ANOMALIB"))}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2])} | (
        {} if home is None else {"ANOMALIB_SPD_HOME": home}
    )
    code = f"""
import pwd
def nobody(*_args):
    raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = nobody
import timm, anomalib_spd
timm.create_model("{NAME}", pretrained=True)
from anomalib_spd.cli.main import main
assert main(["backbones", "list"]) == 0
assert main(["backbones", "show", "none_spd"]) == 1
assert main(["backbones", "add", "mine_spd", "{tmp_path / "w.pth"}", "--architecture", "test_efficientnet"]) == 1
"""
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.pth")
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert run.returncode == 0, run.stderr
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert "There is no backbone 'none_spd'" in errors[0]
    assert "Set ANOMALIB_SPD_HOME to " in errors[1]
    assert NAME in run.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]
