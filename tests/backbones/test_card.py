"""Exported folders are ready for the Hugging Face hub, by the hub's own classes. ``ModelCard.validate`` asks the hub itself; nothing here does."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.utils import validate_repo_id
from torch import Tensor

from anomalib_spd.backbones import add, available, export, find, register
from anomalib_spd.backbones.card import card_data, card_text
from anomalib_spd.backbones.record import CATALOG_FOLDER, Backbone
from anomalib_spd.cli.main import main
from tests.conftest import REPOSITORY

SHIPPED = sorted(folder.name for folder in CATALOG_FOLDER.iterdir())
FIGURE = {
    "task_type": "image-feature-extraction",
    "dataset_type": "mine",
    "dataset_name": "Mine: all",
    "metric_type": "roc_auc",
    "metric_value": 0.75,
}


@pytest.mark.parametrize("name", SHIPPED)
def test_an_exported_folder_is_ready_for_the_hub(name: str, tmp_path: Path, images: Tensor) -> None:
    folder = tmp_path / "parcel"
    assert main(["backbones", "export", name, str(folder)]) == 0
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "timm"
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert {"timm", "anomalib", "anomaly-detection"} <= {*card.data.tags}
    assert str(card) == (folder / "README.md").read_text()
    validate_repo_id(f"USER/{name}")
    assert f'"hf-hub:USER/{name}"' in card.text
    if name == "efficientnet_lite0_in1k":
        assert card.data.base_model is None
    else:
        assert card.data.base_model == "anomalib-spd/efficientnet_lite0_in1k"
        validate_repo_id(card.data.base_model)
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(network(images), timm.create_model(name, pretrained=True).eval()(images))


@pytest.mark.parametrize("name", SHIPPED)
def test_cards_of_the_catalogue_are_as_their_records_say(name: str) -> None:
    card = (CATALOG_FOLDER / name / "README.md").read_text()
    paragraphs = card.split(f"\n# {name}\n", 1)[1].split("\n| | |\n", 1)[0].strip()
    assert card == card_text(Backbone.read(CATALOG_FOLDER / name), name, paragraphs)


@pytest.mark.parametrize("name", SHIPPED)
def test_licences_are_true_to_the_images(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = find(name)
    # the authors of the base, who trained it on ImageNet, published it under Apache-2.0
    restricted = any(word in backbone.provenance.data for word in ("research", "NC"))
    assert backbone.license == ("research-only" if restricted else "apache-2.0")
    data = metadata_load(backbone.folder / "README.md")
    assert data is not None
    assert data["license"] == ("other" if restricted else "apache-2.0")
    assert data.get("license_name") == ("research-only" if restricted else None)
    assert main(["backbones", "list"]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.split()[0] == name)
    assert backbone.license in row.split()


def test_figures_of_the_catalogue_are_those_of_the_grid() -> None:
    cells = pd.read_csv(REPOSITORY / "results" / "dev_shipped.csv")
    cells = cells[cells["detector"] == "PatchCore 0.01"]
    with_figures = []
    for name in SHIPPED:
        card = ModelCard.load(CATALOG_FOLDER / name / "README.md")
        if card.data.eval_results is None:
            continue
        with_figures.append(name)
        assert card.data.model_name == name
        assert {*card.data.metrics} == {"roc_auc", "average_precision"}
        own = cells[cells["sha256"] == find(name).provenance.sha256]
        for figure in card.data.eval_results:
            column = figure.metric_name.replace("AU-", "AU").replace(" (step)", "_step").replace(" ", "_")
            measured = own[own["category"] == figure.dataset_config][column]
            assert len(measured) == 3
            assert figure.metric_value == pytest.approx(measured.mean(), abs=5e-5)
        assert len(card.data.eval_results) == 10  # two sets have masks, and screw has none
    # that of clean data is not in the grid
    assert with_figures == ["efficientnet_lite0_control", "efficientnet_lite0_in1k", "efficientnet_lite0_spd"]


def _backbone(save: Any, registry: Path, **provenance: Any) -> Backbone:
    add("mine_spd", save(), "test_efficientnet")
    file = registry / "mine_spd" / "config.json"
    config = json.loads(file.read_text())
    config["anomalib_spd"]["provenance"] |= provenance
    file.write_text(json.dumps(config))
    return Backbone.read(file.parent)


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ({}, None),
        ({"backbone": "resnet18.a1_in1k"}, "timm/resnet18.a1_in1k"),
        ({"backbone": "hf-hub:some/where@1234"}, "some/where"),
        ({"backbone": "efficientnet_lite0_in1k"}, "anomalib-spd/efficientnet_lite0_in1k"),
        ({"backbone": "efficientnet_lite0_in1k", "pretrained": False}, None),
        ({"backbone": "local-dir:mine"}, None),
        ({"backbone": "hf-hub:a b"}, None),
        ({"backbone": "../weights"}, None),
        ({"backbone": ""}, None),
        ({"backbone": ["a"]}, None),
    ],
)
def test_base_model(settings: dict[str, Any], base: str | None, save: Any, registry: Path) -> None:
    assert card_data(_backbone(save, registry, settings=settings), "mine_spd").base_model == base


def test_figures_on_record_come_along(save: Any, registry: Path, tmp_path: Path) -> None:
    _backbone(save, registry, figures=[FIGURE])
    register()
    add("copy_spd", export("mine_spd", tmp_path / "first"))
    card = ModelCard.load(export("copy_spd", tmp_path / "second") / "README.md")
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_value) == ("Mine: all", 0.75)
    assert card.data.model_name == "copy_spd"


@pytest.mark.parametrize(
    "figures", [{"a": 1}, [1], [FIGURE | {"metric_value": "high"}], [FIGURE | {"unknown": "x"}], [{"task_type": "x"}]]
)
def test_figures_that_are_none_are_refused(figures: Any, save: Any, registry: Path) -> None:
    with pytest.raises(ValueError, match="figures is"):
        _backbone(save, registry, figures=figures)


def test_a_copied_folder_gets_its_card_when_it_is_exported(save: Any, registry: Path, tmp_path: Path) -> None:
    add("mine_spd", save(), "test_efficientnet", license_id="mit")
    for change in ("old", "none"):
        card = registry / "mine_spd" / "README.md"
        card.write_text("---\nlicense: other\n---\n# By hand\n") if change == "old" else card.unlink()
        written = ModelCard.load(export("mine_spd", tmp_path / change) / "README.md")
        assert written.data.license == "mit"
        assert ("# By hand" if change == "old" else "# mine_spd") in written.text
    shutil.rmtree(registry / "mine_spd")
    register()
    assert "mine_spd" not in available()
