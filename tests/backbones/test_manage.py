"""Adding, removing and exporting: what is accepted, what is refused, and that a refusal leaves nothing behind."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from lightning.pytorch import Trainer
from racing import add_at_once
from timm.models import save_for_hf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anomalib_spd.backbones import Backbone, add, available, export, find, manage, remove
from anomalib_spd.backbones.statistics import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.pretraining import SupervisedSPD

HALF = (0.5, 0.5, 0.5)


def content(folder: Path) -> dict[str, bytes]:
    """Everything in a folder that there may not be, hidden files too."""
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else b"" for f in folder.rglob("*")}


def features(name: str, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        maps: list[Tensor] = timm.create_model(name, pretrained=True, features_only=True).eval()(images)
    return maps


# --- what is accepted ---


def test_add(save: Any, make_model: Any, images: Tensor, shelf: Path) -> None:
    backbone = add("mine_spd", save(), "test_efficientnet")
    assert content(shelf).keys() == {
        "mine_spd",
        "mine_spd/config.json",
        "mine_spd/model.safetensors",
        "mine_spd/README.md",
    }
    assert backbone == find("mine_spd") == Backbone.read(shelf / "mine_spd")
    assert backbone.layers == ("blocks.2", "blocks.3")
    backbone.verify()
    source = make_model()
    assert torch.equal(timm.create_model("mine_spd", pretrained=True).eval()(images), source(images))
    for ours, theirs in zip(features("mine_spd", images), source.forward_intermediates(images)[1], strict=True):
        assert torch.equal(ours, theirs)


def test_tags(save: Any, images: Tensor) -> None:
    add("x_spd.a", save(seed=1), "test_efficientnet")
    add("x_spd.b", save(seed=2), "test_efficientnet")
    a, b = features("x_spd.a", images), features("x_spd.b", images)
    assert not torch.equal(a[0], b[0])
    assert set(timm.list_models("x_spd*", pretrained=True)) == {"x_spd.a", "x_spd.b"}


def test_provenance(save: Any) -> None:
    path = save()
    backbone = add(
        "mine_spd",
        path,
        "test_efficientnet",
        license_id="cc-by-4.0",
        origin_url="https://example.org",
        data="own photographs",
        recipe="by hand",
        command="make",
        description="It sees scratches.",
    )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.provenance.data == "own photographs"
    assert backbone.provenance.recipe == "by hand"
    assert backbone.provenance.command == "make"
    assert backbone.provenance.checkpoint == f"weights.pth, sha256 {sha256}"
    assert backbone.pretrained_cfg["license"] == "cc-by-4.0"
    assert backbone.pretrained_cfg["origin_url"] == "https://example.org"
    card = (backbone.folder / "README.md").read_text()
    assert "It sees scratches." in card
    assert "own photographs" in card


def test_facts_of_timms_own_weights_are_not_claimed(save: Any) -> None:
    cfg = add("mine_spd", save(architecture="resnet18"), "resnet18").pretrained_cfg
    assert timm.get_pretrained_cfg("resnet18").paper_ids
    assert cfg["license"] == "other"
    assert not {"paper_ids", "hf_hub_id", "url", "source"} & cfg.keys()
    assert cfg["origin_url"] is None


@pytest.mark.parametrize("half", [True, False])
def test_precision_is_kept(half: bool, save: Any, make_model: Any) -> None:
    model = make_model().half() if half else make_model()
    backbone = add("mine_spd", save(model.state_dict()), "test_efficientnet", mean=HALF, std=HALF)
    stored = torch.float16 if half else torch.float32
    weights = manage.read_source(backbone.folder).tensors
    assert {t.dtype for t in weights.values() if t.is_floating_point()} == {stored}


def test_torchvision_and_fine_tuned_weights(save: Any, images: Tensor) -> None:
    torch.manual_seed(0)
    source = torchvision.models.resnet18(num_classes=3).eval()
    add("tv_spd", save(source.state_dict()), "resnet18")
    model = timm.create_model("tv_spd", pretrained=True).eval()
    assert model.num_classes == 3
    torch.testing.assert_close(model(images), source(images))


def test_architecture_with_a_tag(save: Any) -> None:
    assert add("mine_spd", save(architecture="resnet18"), "resnet18.a1_in1k").architecture == "resnet18"


def test_architecture_by_a_name_on_the_shelf(save: Any, make_model: Any, images: Tensor) -> None:
    args = {"block_args": {"attn_layer": "se"}}
    source = make_model("resnet10t", num_classes=4, **args)
    add("base_spd", _stock_folder(source, save))
    # fine-tuned from it: other weights, no classifier, the same network
    tuned = make_model("resnet10t", num_classes=0, seed=5, **args)
    backbone = add("tuned_spd", save(tuned.state_dict()), "base_spd")
    assert backbone.architecture == "resnet10t"
    assert backbone.model_args["block_args"] == args["block_args"]
    assert torch.equal(timm.create_model("tuned_spd", pretrained=True).eval()(images), tuned(images))


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.randint(0, 255, (3, 48, 48), dtype=torch.uint8), torch.tensor(index % 2)


def test_lightning_checkpoint_of_this_package_names_its_network(save: Any, tmp_path: Path, images: Tensor) -> None:
    add("base_spd", save(architecture="test_efficientnet"), "test_efficientnet")
    module = SupervisedSPD(num_classes=2, backbone="base_spd", image_size=32)
    trainer = Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, DataLoader(_Batches(), batch_size=4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    backbone = add("spd.trained", tmp_path / "last.ckpt")
    assert backbone.architecture == "test_efficientnet"
    assert "backbone=base_spd, pretrained=True, eta=0.1" in backbone.provenance.recipe
    model = timm.create_model("spd.trained", pretrained=True).eval()
    torch.testing.assert_close(model(images), module.encoder.eval()(images))
    # given expressly, the architecture is not looked up
    remove("base_spd")
    with pytest.raises(ValueError, match=r"trained from backbone 'base_spd', unknown here. Give the architecture"):
        add("spd.again", tmp_path / "last.ckpt")
    add("spd.again", tmp_path / "last.ckpt", "test_efficientnet")


# --- folders ---


def _stock_folder(model: torch.nn.Module, save: Any, name: str = "stock") -> Path:
    folder: Path = save([1]).parent / name
    save_for_hf(model, str(folder), safe_serialization=True)
    return folder


def test_folder_of_ours_is_moved_between_shelves(save: Any, tmp_path: Path, images: Tensor) -> None:
    add("mine_spd", save(), "test_efficientnet", data="own photographs", recipe="by hand", license_id="mit")
    folder = export("mine_spd", tmp_path / "parcel")
    copy = add("copy_spd", folder)
    assert copy.provenance.data == "own photographs"
    assert copy.provenance.recipe == "by hand"
    assert copy.pretrained_cfg["license"] == "mit"
    assert copy.provenance.checkpoint.startswith("model.safetensors, sha256 ")
    assert "itself from weights.pth" in copy.provenance.checkpoint
    assert copy.weights.read_bytes() == find("mine_spd").weights.read_bytes()
    (folder / "model.safetensors").write_bytes(copy.weights.read_bytes() + b" ")
    with pytest.raises(ValueError, match="are not those that were put there"):
        add("other_spd", folder)


def test_stock_folder_states_its_statistics(save: Any, make_model: Any) -> None:
    source = make_model("test_resnet")  # mean and std of timm's record are 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone = add("folded_spd", _stock_folder(source, save))
    assert "mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5] folded" in backbone.provenance.recipe
    assert tuple(backbone.pretrained_cfg["mean"]) == IMAGENET_MEAN
    image = torch.rand(1, 3, 64, 64)
    ours = timm.create_model("folded_spd", pretrained=True).eval()
    with torch.no_grad():
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        expected = source.bn1(source.conv1((image - 0.5) / 0.5))
        found = ours.bn1(ours.conv1((image - mean) / std))
    # beyond the reach of the zero padding
    torch.testing.assert_close(found[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], atol=1e-4, rtol=1e-4)


def test_stock_folder_keeps_its_arguments(save: Any, make_model: Any, shelf: Path) -> None:
    source = make_model("test_vit", img_size=64, num_classes=3, class_token=False, global_pool="avg")
    backbone = add("little_vit_spd", _stock_folder(source, save), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert backbone.model_args["img_size"] == [64, 64]
    assert backbone.model_args["class_token"] is False
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(timm.create_model("little_vit_spd", pretrained=True).eval()(images), source(images))
    assert torch.equal(
        timm.create_model(f"local-dir:{shelf}/little_vit_spd", pretrained=True).eval()(images), source(images)
    )


def test_old_folder_with_its_record_at_the_top(save: Any, make_model: Any, images: Tensor) -> None:
    folder = _stock_folder(make_model(), save)
    config = json.loads((folder / "config.json").read_text())
    flat = config["pretrained_cfg"] | {"architecture": config["architecture"], "num_features": 256}
    (folder / "config.json").write_text(json.dumps(flat))
    add("old_spd", folder)
    assert torch.equal(timm.create_model("old_spd", pretrained=True).eval()(images), make_model()(images))


def _break_config(**change: Any) -> Callable[[Path], None]:
    def change_it(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | change
        (folder / "config.json").write_text(json.dumps(config))

    return change_it


BROKEN_FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "is not an exported backbone .*FileNotFoundError"),
    "not json": (
        lambda folder: (folder / "config.json").write_text("{"),
        "is not an exported backbone .*JSONDecodeError",
    ),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "is not an exported backbone"),
    "no architecture": (lambda folder: (folder / "config.json").write_text("{}"), "KeyError: 'architecture'"),
    "unknown architecture": (_break_config(architecture="resnet19x"), "Unknown architecture 'resnet19x'"),
    "arguments": (_break_config(model_args={"no_such": 1}), "timm cannot build test_efficientnet"),
    "channels": (_break_config(model_args={"in_chans": 1}), "for images of 1 channels"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "Cannot read .*model.safetensors"),
    "weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "not a complete safetensors file"),
}


@pytest.mark.parametrize("case", BROKEN_FOLDERS)
def test_broken_folders(case: str, save: Any, make_model: Any, shelf: Path) -> None:
    folder = _stock_folder(make_model(), save)
    break_it, message = BROKEN_FOLDERS[case]
    break_it(folder)
    with pytest.raises((ValueError, OSError), match=message):
        add("mine_spd", folder)
    assert not shelf.exists()


# --- statistics ---


def test_statistics_are_folded(save: Any, make_model: Any) -> None:
    backbone = add("mine_spd", save(architecture="test_resnet"), "test_resnet", mean=HALF, std=HALF)
    assert "folded" in backbone.provenance.recipe
    stock = add("plain_spd", save(architecture="test_resnet"), "test_resnet", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert stock.provenance.recipe == ""
    assert backbone.weights.read_bytes() != stock.weights.read_bytes()


def test_other_statistics_of_the_architecture_are_pointed_out(save: Any) -> None:
    with pytest.warns(UserWarning, match=r"--mean 0.5 0.5 0.5 --std 0.5 0.5 0.5"):
        add("mine_spd", save(architecture="test_resnet"), "test_resnet")
    # weights made from one on the shelf expect what those on the shelf expect
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add("tuned_spd", save(architecture="test_resnet"), "mine_spd")


# --- what is refused ---

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
    "vit": ({"name": "activity_spd"}, "contains 'vit', by which anomalib tells vision transformers.*EfficientNet"),
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
@pytest.mark.parametrize("shelf_exists", [True, False])
def test_refused(case: str, shelf_exists: bool, save: Any, make_model: Any, shelf: Path) -> None:
    if shelf_exists:
        shutil.copytree(next(iter(available().values())).folder, shelf / "other_spd")
    before = content(shelf)
    call, message = REFUSED[case]
    call = {"name": "mine_spd", "architecture": "test_efficientnet"} | call
    tensors = make_model().state_dict() | dict([call.pop("with")] if "with" in call else [])
    tensors.pop(call.pop("without", None), None)
    path = save(tensors)
    if call.pop("cut", False):
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises((ValueError, OSError), match=f"(?s){message}"):
        add(**{"checkpoint": path} | call)
    assert content(shelf) == before
    assert shelf.exists() == shelf_exists


def test_taken(save: Any, shelf: Path) -> None:
    add("mine_spd", save(), "test_efficientnet")
    before = content(shelf)
    with pytest.raises(ValueError, match=r"'mine_spd' is taken on your shelf.*anomalib-spd backbones remove mine_spd"):
        add("mine_spd", save(seed=1), "test_efficientnet")
    assert content(shelf) == before


def test_vision_transformers_may_say_what_they_are(save: Any) -> None:
    path = save(architecture="test_vit")
    add("my_vit_spd", path, "test_vit", mean=HALF, std=HALF)


def test_networks_that_cannot_take_statistics(save: Any, shelf: Path) -> None:
    with pytest.raises(ValueError, match="no bias and no batch norm behind it"):
        add("mine_spd", save(architecture="test_efficientnet_gn"), "test_efficientnet_gn", mean=HALF, std=HALF)
    assert not shelf.exists()


def test_networks_without_feature_maps(save: Any, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any) -> None:
        raise RuntimeError("features_only not implemented")

    monkeypatch.setattr(manage, "describe_layers", refuse)
    with pytest.raises(ValueError, match="timm gives no feature maps of test_efficientnet"):
        add("mine_spd", save(), "test_efficientnet")
    assert not shelf.exists()


# --- a shelf that cannot be written ---


@pytest.mark.parametrize("below", ["", "shelf"])
def test_shelf_that_is_no_folder(below: str, save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("ANOMALIB_SPD_HOME", str(tmp_path / "file" / below))
    with pytest.raises(OSError, match=r"Cannot write to the shelf .*file.*Set ANOMALIB_SPD_HOME to a folder"):
        add("mine_spd", save(), "test_efficientnet")
    assert (tmp_path / "file").read_text() == "x"


def test_shelf_without_permission(save: Any, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add("mine_spd", save(), "test_efficientnet")
    before = content(shelf)

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    message = r"Cannot write to the shelf .*shelf: Permission denied. Set ANOMALIB_SPD_HOME"
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
    assert content(shelf) == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failure_while_writing(
    error: BaseException, save: Any, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save()
    add("mine_spd", path, "test_efficientnet")
    before = content(shelf)

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("shutil.copymode", fail)
    monkeypatch.setattr("shutil.copyfile", fail)
    with pytest.raises(type(error), match=r"Cannot write to the shelf .*No space|^$"):
        add("other_spd", path, "test_efficientnet")
    with pytest.raises(type(error), match=r"Cannot write .*parcel: No space|^$"):
        export("mine_spd", tmp_path / "parcel")
    assert content(shelf) == before
    assert not [f for f in tmp_path.iterdir() if "parcel" in f.name]


def test_modes_follow_the_umask(save: Any, shelf: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        add("mine_spd", save(), "test_efficientnet")
        export("mine_spd", tmp_path / "parcel")
    finally:
        os.umask(before)
    for folder in (shelf / "mine_spd", tmp_path / "parcel"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o640}


# --- two processes at once ---


def test_two_processes_add_one_name(save: Any, make_model: Any, shelf: Path, images: Tensor) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    runs = [
        context.Process(target=add_at_once, args=("raced_spd", save(name=f"{n}.pth", seed=n), str(n), barrier, results))
        for n in (1, 2)
    ]
    for run in runs:
        run.start()
    outcome = dict(results.get(timeout=150) for _ in runs)
    for run in runs:
        run.join(30)
    (winner,) = [recipe for recipe, error in outcome.items() if not error]
    (error,) = [error for error in outcome.values() if error]
    assert "'raced_spd' is taken on your shelf" in error
    assert sorted(f.name for f in shelf.iterdir()) == ["raced_spd"]
    backbone = Backbone.read(shelf / "raced_spd")
    backbone.verify()
    assert backbone.provenance.recipe == winner
    model = timm.create_model(f"local-dir:{backbone.folder}", pretrained=True).eval()
    assert torch.equal(model(images), make_model(seed=int(winner))(images))


# --- taken off ---


def test_remove(save: Any, shelf: Path) -> None:
    add("mine_spd", save(), "test_efficientnet")
    add("tagged_spd.a", save(), "test_efficientnet")
    add("tagged_spd.b", save(), "test_efficientnet")
    remove("mine_spd")
    remove("tagged_spd.a")
    assert [f.name for f in shelf.iterdir()] == ["tagged_spd.b"]
    assert "mine_spd" not in available()
    assert not timm.list_models("mine_spd*", pretrained=True)
    for name in ("mine_spd", "tagged_spd.a"):
        for pretrained in (True, False):
            with pytest.raises(
                ValueError, match=f"no backbone '{name}' on the shelf .*removed, or never added. There are"
            ):
                timm.create_model(name, pretrained=pretrained)
    timm.create_model("tagged_spd", pretrained=True)
    # the name is free again
    add("mine_spd", save(seed=3), "test_efficientnet")
    timm.create_model("mine_spd", pretrained=True)


def test_removed_or_renewed_by_another_process(save: Any, make_model: Any, shelf: Path, images: Tensor) -> None:
    backbone = add("mine_spd", save(), "test_efficientnet")
    other = add("other_spd", save(seed=1), "test_efficientnet")
    shutil.rmtree(backbone.folder)
    with pytest.raises(ValueError, match="no backbone 'mine_spd' on the shelf"):
        timm.create_model("mine_spd", pretrained=True)
    other.folder.rename(backbone.folder)
    assert torch.equal(timm.create_model("mine_spd", pretrained=True).eval()(images), make_model(seed=1)(images))


def test_remove_refuses(save: Any, shelf: Path, tmp_path: Path) -> None:
    add("mine_spd", save(), "test_efficientnet")
    with pytest.raises(ValueError, match="belongs to the package"):
        remove("efficientnet_lite0_in1k")
    (tmp_path / "precious").mkdir()
    for name in ("none_spd", "../../precious", "", ".", "..", str(tmp_path / "precious")):
        with pytest.raises(ValueError, match="There is no backbone"):
            remove(name)
    assert (tmp_path / "precious").is_dir()
    assert [f.name for f in shelf.iterdir()] == ["mine_spd"]


def test_broken_and_linked_folders_can_be_removed(save: Any, shelf: Path, tmp_path: Path) -> None:
    target = add("mine_spd", save(), "test_efficientnet").folder.rename(tmp_path / "elsewhere")
    (shelf / "linked_spd").symlink_to(target)
    (shelf / "broken_spd").mkdir()
    remove("linked_spd")
    remove("broken_spd")
    assert not list(shelf.iterdir())
    assert len(list(target.iterdir())) == 3


# --- copied out ---


@pytest.mark.parametrize("exists", [True, False])
def test_export(exists: bool, save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = add("mine_spd", save(), "test_efficientnet")
    if exists:
        (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = export("mine_spd", "out" if exists else "new/out")
    assert folder.is_absolute()
    assert content(folder) == content(backbone.folder)
    assert len(list(folder.parent.glob(".*"))) == 0


def test_export_of_the_catalogue(tmp_path: Path) -> None:
    folder = export("efficientnet_lite0_in1k", tmp_path / "out")
    assert timm.create_model(f"local-dir:{folder}", pretrained=True).num_classes == 1000


def test_export_refuses(save: Any, tmp_path: Path) -> None:
    backbone = add("mine_spd", save(), "test_efficientnet")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "full", tmp_path / "file"):
        with pytest.raises(ValueError, match="exists and is not an empty folder"):
            export("mine_spd", target)
    with pytest.raises(ValueError, match="There is no backbone 'none_spd'"):
        export("none_spd", tmp_path / "out")
    with pytest.raises(OSError, match=r"Cannot write .*file/out.*Give a folder"):
        export("mine_spd", tmp_path / "file" / "out")
    backbone.weights.write_bytes(b"")
    with pytest.raises(ValueError, match="are not those that were put there"):
        export("mine_spd", tmp_path / "out")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "full", "home", "weights.pth"]


def test_export_warns_of_anomalibs_routing(save: Any, tmp_path: Path) -> None:
    add("mine_spd", save(), "test_efficientnet")
    with pytest.warns(UserWarning, match="contains 'vit'.*Move the folder"):
        export("mine_spd", tmp_path / "home_of_Vitaly" / "out")
    add("my_vit_spd", save(architecture="test_vit"), "test_vit", mean=HALF, std=HALF)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export("my_vit_spd", tmp_path / "vit")


PLUGIN_FREE = """
import sys
sys.modules["anomalib_spd"] = None  # whoever imports it, fails
import timm, torch
from anomalib.models.components.feature_extractors import TimmFeatureExtractor
folder, images, out = sys.argv[1:]
images = torch.load(images)
model = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True).eval()
extractor = TimmFeatureExtractor(backbone=f"local-dir:{folder}", layers=["blocks.2", "blocks.3"])
with torch.no_grad():
    torch.save({"timm": model(images), "anomalib": extractor(images)}, out)
"""


def test_stock_anomalib_reads_every_folder_without_the_plugin(
    save: Any, shelf: Path, tmp_path: Path, images: Tensor
) -> None:
    add("mine_spd", save(), "test_efficientnet")
    expected = features("mine_spd", images)
    torch.save(images, tmp_path / "images.pt")
    paths = [shelf / "mine_spd", tmp_path / "images.pt", tmp_path / "out.pt"]
    subprocess.run([sys.executable, "-c", PLUGIN_FREE, *map(str, paths)], check=True, cwd=tmp_path)
    found = torch.load(tmp_path / "out.pt")
    for ours, theirs in zip(found["timm"], expected, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(found["anomalib"]["blocks.2"], expected[2])
    assert torch.equal(found["anomalib"]["blocks.3"], expected[3])
