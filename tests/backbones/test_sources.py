"""What a backbone can be made from: architectures by name, checkpoints that name theirs, folders, statistics."""

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from lightning.pytorch import Trainer
from timm.models import save_for_hf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anomalib_spd.backbones import add, export, find, remove
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.pretraining import SupervisedSPD

HALF = (0.5, 0.5, 0.5)


def test_architecture_with_a_tag(save: Any) -> None:
    assert add("mine_spd", save(architecture="resnet18"), "resnet18.a1_in1k").architecture == "resnet18"


def test_architecture_by_a_name_in_the_registry(save: Any, make_model: Any, images: Tensor) -> None:
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
    assert backbone.provenance.settings["backbone"] == "base_spd"
    assert "backbone=base_spd, pretrained=True" in backbone.provenance.summary()
    assert "eta=0.1" in backbone.provenance.summary()
    model = timm.create_model("spd.trained", pretrained=True).eval()
    torch.testing.assert_close(model(images), module.encoder.eval()(images))
    # given expressly, the architecture is not looked up
    remove("base_spd")
    with pytest.raises(ValueError, match=r"trained from backbone 'base_spd', unknown here. Give the architecture"):
        add("spd.again", tmp_path / "last.ckpt")
    add("spd.again", tmp_path / "last.ckpt", "test_efficientnet")


@pytest.mark.parametrize(
    ("of_base", "pretrained", "of_training"),
    [
        ("research-only", True, "research-only"),
        ("cc-by-nc-4.0", True, "cc-by-nc-4.0"),
        ("apache-2.0", True, "other"),
        ("research-only", False, "other"),
    ],
)
def test_a_license_that_restricts_is_that_of_what_is_trained(
    of_base: str, pretrained: bool, of_training: str, save: Any, make_model: Any
) -> None:
    add("base_spd", save(), "test_efficientnet", license_id=of_base)
    tensors = {f"encoder.{name}": value for name, value in make_model(num_classes=0).state_dict().items()}
    settings = {"backbone": "base_spd", "pretrained": pretrained, "_class_path": "anomalib_spd.local.DenseSPD"}
    checkpoint = save({"state_dict": tensors, "hyper_parameters": settings}, "last.ckpt")
    assert add("trained_spd", checkpoint).license == of_training
    assert add("own_spd", checkpoint, license_id="mit").license == "mit"


def _stock_folder(model: torch.nn.Module, save: Any, name: str = "stock") -> Path:
    folder: Path = save([1]).parent / name
    save_for_hf(model, str(folder), safe_serialization=True)
    return folder


def test_folder_of_ours_is_moved_between_registries(save: Any, tmp_path: Path, images: Tensor) -> None:
    add("mine_spd", save(), "test_efficientnet", data="own photographs", recipe="by hand", license_id="mit")
    folder = export("mine_spd", tmp_path / "parcel")
    copy = add("copy_spd", folder)
    assert copy.provenance.data == "own photographs"
    assert copy.provenance.recipe == "by hand"
    assert copy.pretrained_cfg["license"] == "mit"
    # the run that made the weights stays known
    assert copy.provenance.checkpoint == "weights.pth"
    assert copy.provenance.checkpoint_sha256 == find("mine_spd").provenance.checkpoint_sha256
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


def test_stock_folder_keeps_its_arguments(save: Any, make_model: Any, registry: Path) -> None:
    source = make_model("test_vit", img_size=64, num_classes=3, class_token=False, global_pool="avg")
    backbone = add("little_vit_spd", _stock_folder(source, save), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert backbone.model_args["img_size"] == [64, 64]
    assert backbone.model_args["class_token"] is False
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(timm.create_model("little_vit_spd", pretrained=True).eval()(images), source(images))
    assert torch.equal(
        timm.create_model(f"local-dir:{registry}/little_vit_spd", pretrained=True).eval()(images), source(images)
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
    "channels": (_break_config(model_args={"in_chans": 4}), "for images of 4 channels"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "Cannot read .*model.safetensors"),
    "a pipe": (
        lambda folder: ((folder / "model.safetensors").unlink(), os.mkfifo(folder / "model.safetensors")),
        r"model\.safetensors is no file",
    ),
    "weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "not a complete safetensors file"),
}


@pytest.mark.parametrize("case", BROKEN_FOLDERS)
def test_broken_folders(case: str, save: Any, make_model: Any, registry: Path) -> None:
    folder = _stock_folder(make_model(), save)
    break_it, message = BROKEN_FOLDERS[case]
    break_it(folder)
    with pytest.raises((ValueError, OSError), match=message):
        add("mine_spd", folder)
    assert not registry.exists()


def test_statistics_are_folded(save: Any, make_model: Any) -> None:
    backbone = add("mine_spd", save(architecture="test_resnet"), "test_resnet", mean=HALF, std=HALF)
    assert "folded" in backbone.provenance.recipe
    stock = add("plain_spd", save(architecture="test_resnet"), "test_resnet", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert stock.provenance.recipe == ""
    assert backbone.weights.read_bytes() != stock.weights.read_bytes()


def test_other_statistics_of_the_architecture_are_pointed_out(save: Any) -> None:
    with pytest.warns(UserWarning, match=r"--mean 0.5 0.5 0.5 --std 0.5 0.5 0.5"):
        add("mine_spd", save(architecture="test_resnet"), "test_resnet")
    # weights made from one in the registry expect what those in the registry expect
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add("tuned_spd", save(architecture="test_resnet"), "mine_spd")
