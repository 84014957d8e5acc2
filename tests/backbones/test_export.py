"""The folder that is written: timm's format, our section, a model card."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from anomalib_spd.backbones import Backbone, Provenance
from anomalib_spd.backbones.export import write_folder
from anomalib_spd.backbones.feature_layers import layers_at
from anomalib_spd.files import sha256_of

PROVENANCE = Provenance(data="own photographs", recipe="by hand")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "written"
    path.mkdir()
    return path


@pytest.mark.parametrize("half", [True, False])
def test_round_trip(half: bool, folder: Path, make_model: Any, images: Tensor) -> None:
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_folder(model, folder, "mine_spd", "test_efficientnet", PROVENANCE, half=half)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    backbone = Backbone.read(folder)
    backbone.verify()
    assert backbone.provenance.sha256 == sha256_of(folder / "model.safetensors")
    assert backbone.provenance.data == "own photographs"
    read = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(read(images), (make_model().half().float() if half else model)(images))
    stored = {t.dtype for t in load_file(folder / "model.safetensors").values() if t.is_floating_point()}
    assert stored == {torch.float16 if half else torch.float32}


def test_config_is_what_timm_expects(folder: Path, make_model: Any) -> None:
    model = make_model("test_resnet", num_classes=4)  # timm's record of it has other statistics
    write_folder(
        model, folder, "mine_spd", "test_resnet", PROVENANCE, license_id="mit", origin_url="https://example.org"
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "test_resnet"
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 4
    assert config["pretrained_cfg"]["mean"] == [0.485, 0.456, 0.406]
    assert config["pretrained_cfg"]["std"] == [0.229, 0.224, 0.225]
    assert config["pretrained_cfg"]["license"] == "mit"
    assert config["anomalib_spd"] == {
        "layers": ["layer2", "layer3"],
        "n_features": 100,
        "provenance": {
            "sha256": sha256_of(folder / "model.safetensors"),
            "data": "own photographs",
            "recipe": "by hand",
        },
    }


def test_card(folder: Path, make_model: Any) -> None:
    write_folder(make_model(), folder, "mine_spd", "test_efficientnet", PROVENANCE, description="It sees scratches.")
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm\nlicense: other\n")
    for text in (
        "# mine_spd",
        "It sees scratches.",
        "own photographs",
        "by hand",
        sha256_of(folder / "model.safetensors"),
    ):
        assert text in card
    assert 'Patchcore(backbone="mine_spd", layers=["blocks.2", "blocks.3"])' in card
    assert "{" not in card


def test_all_files_have_one_mode(folder: Path, make_model: Any) -> None:
    write_folder(make_model(), folder, "mine_spd", "test_efficientnet", PROVENANCE)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert len(modes) == 1
    assert modes != {0o600}


def test_memory_format_of_training(folder: Path, make_model: Any, images: Tensor) -> None:
    model = make_model().to(memory_format=torch.channels_last)
    write_folder(model, folder, "mine_spd", "test_efficientnet", PROVENANCE)
    assert model.conv_head.weight.is_contiguous(memory_format=torch.channels_last)
    read = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    torch.testing.assert_close(read(images), model(images))


def test_arguments_of_the_architecture(folder: Path) -> None:
    args = {"img_size": 64, "class_token": False, "global_pool": "avg"}
    model = timm.create_model("test_vit", num_classes=0, **args).eval()
    write_folder(model, folder, "mine", "test_vit", PROVENANCE, model_args=args)
    read = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(read(images), model(images))


@pytest.mark.parametrize(
    ("architecture", "layers", "n_features"),
    [
        ("resnet18", ("layer2", "layer3"), 100),
        ("test_vit", ("blocks.5",), 64),
        ("mixer_s32_224", ("blocks.7",), 100),  # neither stride 8 nor 16
    ],
)
def test_layers(architecture: str, layers: tuple[str, ...], n_features: int, folder: Path, make_model: Any) -> None:
    write_folder(make_model(architecture, num_classes=0), folder, "mine", architecture, PROVENANCE)
    backbone = Backbone.read(folder)
    assert backbone.layers == layers
    assert backbone.n_features == n_features
    known = [info["module"] for info in layers_at((2, 4, 8, 16, 32), architecture)]
    assert set(layers) <= set(known)
