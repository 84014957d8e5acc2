"""What `add` refuses, and that a refusal or a failure leaves the registry as it was."""

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import SafetensorError

from anomalib_spd.backbones import add, available, export, remove
from tests.backbones.conftest import content

HALF = (0.5, 0.5, 0.5)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown architecture": ({"architecture": "resnet81"}, r"Unknown architecture 'resnet81'.*Near it: .*resnet18"),
    "unknown tag": ({"architecture": "resnet18.none"}, r"Invalid pretrained tag \(none\).*without its tag, 'resnet18'"),
    "no architecture": ({"architecture": None}, "does not say which network it is for. Give the architecture"),
    "other architecture": ({"architecture": "resnet18"}, r"does not fit resnet18: \d+ missing .*\d+ unexpected"),
    "missing": ({"without": "bn1.weight"}, r"1 missing \(bn1.weight\)"),
    "unexpected": ({"with": ("extra", torch.ones(1))}, r"1 unexpected \(extra\)"),
    "shape": ({"with": ("bn1.weight", torch.ones(3))}, r"1 of another shape \(bn1.weight is \(3,\), not"),
    "nan": ({"with": ("bn2.bias", torch.full((256,), torch.nan))}, r"NaN or infinite values in 1 of .*bn2.bias"),
    "cut off": ({"cut": True}, "not a complete PyTorch checkpoint"),
    "no file": ({"checkpoint": "none.pth"}, "Cannot read none.pth: No such file or directory"),
    "sha256": ({"sha256": "0" * 64}, "has sha256 [0-9a-f]{64}, expected 0{64}"),
    "mean alone": ({"mean": HALF}, "mean and std go together"),
    "std of zero": ({"mean": HALF, "std": (0, 1, 1)}, "3 positive standard deviations"),
    "two means": ({"mean": (0.5, 0.5), "std": HALF}, "Expected 3 means"),
    "means of bytes": ({"mean": (124, 116, 104), "std": (58, 57, 57)}, r"images in \[0, 1\].*Divide by 255"),
    "stock name": ({"name": "resnet18"}, "model of timm's own.*'resnet18_spd'"),
    "stock name, tag": ({"name": "resnet18.spd"}, "model of timm's own.*'resnet18_spd.spd'"),
    "catalogue name": ({"name": "efficientnet_lite0_in1k"}, "is taken in the catalogue"),
    "vit": ({"name": "activity_spd"}, "contains 'vit', by which anomalib recognizes vision transformers.*EfficientNet"),
    "VIT": ({"name": "x_spd.graVITy"}, "contains 'vit'"),
    "dinov2": ({"name": "dinov2_spd"}, "contains 'dinov2'"),
} | {
    f"name {name!r}": ({"name": name}, "cannot be a backbone's name: expected NAME or NAME.TAG")
    for name in (
        "",
        ".",
        "..",
        ".x",
        "a/b",
        "../x",
        "/x",
        "a\\b",
        "C:x",
        "a b",
        "a.b.c",
        "a.",
        "-a",
        "a\n",
        "ä",
        "a" * 101,
    )
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("registry_exists", [True, False])
def test_refused(case: str, registry_exists: bool, save: Any, make_model: Any, registry: Path) -> None:
    if registry_exists:
        shutil.copytree(next(iter(available().values())).folder, registry / "other_spd")
    before = content(registry)
    call, message = REFUSED[case]
    call = {"name": "mine_spd", "architecture": "test_efficientnet"} | call
    tensors = make_model().state_dict() | dict([call.pop("with")] if "with" in call else [])
    tensors.pop(call.pop("without", None), None)
    path = save(tensors)
    if call.pop("cut", False):
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises((ValueError, OSError), match=f"(?s){message}"):
        add(**{"checkpoint": path} | call)
    assert content(registry) == before
    assert registry.exists() == registry_exists


def test_taken(save: Any, registry: Path) -> None:
    add("mine_spd", save(), "test_efficientnet")
    before = content(registry)
    with pytest.raises(
        ValueError, match=r"'mine_spd' is taken in your registry.*anomalib-spd backbones remove mine_spd"
    ):
        add("mine_spd", save(seed=1), "test_efficientnet")
    assert content(registry) == before


@pytest.mark.parametrize("architecture", ["test_vit", "eva02_tiny_patch14_224"])
def test_vision_transformers_say_what_they_are(architecture: str, save: Any, registry: Path) -> None:
    path = save(architecture=architecture)
    for name in ("mine_spd", "dinov2_spd"):
        with pytest.raises(
            ValueError, match=rf"'{name}' does not contain 'vit'.*read it as a CNN.*Take a name with it\.$"
        ):
            add(name, path, architecture, mean=HALF, std=HALF)
    assert not registry.exists()
    add("my_vit_spd", path, architecture, mean=HALF, std=HALF)


def test_networks_that_cannot_take_statistics(save: Any, registry: Path) -> None:
    with pytest.raises(ValueError, match="no bias and no batch norm behind it"):
        add("mine_spd", save(architecture="test_efficientnet_gn"), "test_efficientnet_gn", mean=HALF, std=HALF)
    assert not registry.exists()


def test_networks_without_feature_maps(save: Any, registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_model = timm.create_model

    def refuse(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("features_only"):
            raise RuntimeError("features_only not implemented")
        return create_model(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ValueError, match="timm gives no feature maps of test_efficientnet"):
        add("mine_spd", save(), "test_efficientnet")
    assert not registry.exists()


@pytest.mark.parametrize("below", ["", "registry"])
def test_a_registry_that_is_no_folder(below: str, save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("ANOMALIB_SPD_HOME", str(tmp_path / "file" / below))
    with pytest.raises(OSError, match=r"Cannot write to the registry .*file.*Set ANOMALIB_SPD_HOME to a folder"):
        add("mine_spd", save(), "test_efficientnet")
    assert (tmp_path / "file").read_text() == "x"


def test_a_registry_without_permission(save: Any, registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add("mine_spd", save(), "test_efficientnet")
    before = content(registry)

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    message = r"Cannot write to the registry .*registry: Permission denied. Set ANOMALIB_SPD_HOME"
    path = save()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(PermissionError, match=message):
            add("other_spd", path, "test_efficientnet")
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError, match=message):
        add("other_spd", path, "test_efficientnet")
    with pytest.raises(PermissionError, match=message):
        remove("mine_spd")
    assert content(registry) == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        KeyboardInterrupt(),
    ],
)
def test_failure_while_writing(
    error: BaseException, save: Any, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save()
    add("mine_spd", path, "test_efficientnet")
    before = content(registry)

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("shutil.copymode", fail)
    monkeypatch.setattr("shutil.copyfile", fail)
    raised = OSError if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(raised, match=r"Cannot write to the registry .*No space.*Make room|^$"):
        add("other_spd", path, "test_efficientnet")
    with pytest.raises(
        OSError if isinstance(error, OSError) else type(error), match=r"Cannot write .*parcel: No space|No space|^$"
    ):
        export("mine_spd", tmp_path / "parcel")
    assert content(registry) == before
    assert not [f for f in tmp_path.iterdir() if "parcel" in f.name]
