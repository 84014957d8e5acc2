"""Adding, removing and exporting."""

import hashlib
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from anomalib_spd.backbones import Backbone, add, available, export, find, install, remove
from tests.backbones.concurrent_add import add_at_once
from tests.backbones.conftest import content

HALF = (0.5, 0.5, 0.5)


def features(name: str, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        maps: list[Tensor] = timm.create_model(name, pretrained=True, features_only=True).eval()(images)
    return maps


def test_add(save: Any, make_model: Any, images: Tensor, registry: Path) -> None:
    backbone = add("mine_spd", save(), "test_efficientnet")
    assert content(registry).keys() == {
        "mine_spd",
        "mine_spd/config.json",
        "mine_spd/model.safetensors",
        "mine_spd/README.md",
    }
    assert backbone == find("mine_spd") == Backbone.read(registry / "mine_spd")
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
        settings={"layers": ("a", "b"), "folder": Path("x")},
        description="It sees scratches.",
    )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.provenance.data == "own photographs"
    assert backbone.provenance.recipe == "by hand"
    assert backbone.provenance.command == "make"
    assert backbone.provenance.settings == {"layers": ["a", "b"], "folder": "x"}
    assert backbone.provenance.has_settings({"layers": ("a", "b"), "folder": Path("x")})
    assert not backbone.provenance.has_settings({"layers": ("a", "b")})
    assert (backbone.provenance.checkpoint, backbone.provenance.checkpoint_sha256) == ("weights.pth", sha256)
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
    weights = install.read_source(backbone.folder).tensors
    assert {t.dtype for t in weights.values() if t.is_floating_point()} == {stored}


def test_torchvision_and_fine_tuned_weights(save: Any, images: Tensor) -> None:
    torch.manual_seed(0)
    source = torchvision.models.resnet18(num_classes=3).eval()
    add("tv_spd", save(source.state_dict()), "resnet18")
    model = timm.create_model("tv_spd", pretrained=True).eval()
    assert model.num_classes == 3
    torch.testing.assert_close(model(images), source(images))


def test_modes_follow_the_umask(save: Any, registry: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        add("mine_spd", save(), "test_efficientnet")
        export("mine_spd", tmp_path / "parcel")
    finally:
        os.umask(before)
    for folder in (registry / "mine_spd", tmp_path / "parcel"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o640}


def test_two_processes_add_one_name(save: Any, make_model: Any, registry: Path, images: Tensor) -> None:
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
    assert "'raced_spd' is taken in your registry" in error
    assert sorted(f.name for f in registry.iterdir()) == ["raced_spd"]
    backbone = Backbone.read(registry / "raced_spd")
    backbone.verify()
    assert backbone.provenance.recipe == winner
    model = timm.create_model(f"local-dir:{backbone.folder}", pretrained=True).eval()
    assert torch.equal(model(images), make_model(seed=int(winner))(images))


def test_remove(save: Any, registry: Path) -> None:
    add("mine_spd", save(), "test_efficientnet")
    add("tagged_spd.a", save(), "test_efficientnet")
    add("tagged_spd.b", save(), "test_efficientnet")
    remove("mine_spd")
    remove("tagged_spd.a")
    assert [f.name for f in registry.iterdir()] == ["tagged_spd.b"]
    assert "mine_spd" not in available()
    assert not timm.list_models("mine_spd*", pretrained=True)
    for name in ("mine_spd", "tagged_spd.a"):
        for pretrained in (True, False):
            with pytest.raises(
                ValueError, match=f"no backbone '{name}' in the registry .*removed, or never added. There are"
            ):
                timm.create_model(name, pretrained=pretrained)
    timm.create_model("tagged_spd", pretrained=True)
    # the name is free again
    add("mine_spd", save(seed=3), "test_efficientnet")
    timm.create_model("mine_spd", pretrained=True)


def test_removed_or_renewed_by_another_process(save: Any, make_model: Any, registry: Path, images: Tensor) -> None:
    backbone = add("mine_spd", save(), "test_efficientnet")
    other = add("other_spd", save(seed=1), "test_efficientnet")
    shutil.rmtree(backbone.folder)
    with pytest.raises(ValueError, match="no backbone 'mine_spd' in the registry"):
        timm.create_model("mine_spd", pretrained=True)
    other.folder.rename(backbone.folder)
    assert torch.equal(timm.create_model("mine_spd", pretrained=True).eval()(images), make_model(seed=1)(images))


def test_remove_refuses(save: Any, registry: Path, tmp_path: Path) -> None:
    add("mine_spd", save(), "test_efficientnet")
    with pytest.raises(ValueError, match="belongs to the package"):
        remove("efficientnet_lite0_in1k")
    (tmp_path / "precious").mkdir()
    for name in ("none_spd", "../../precious", "", ".", "..", str(tmp_path / "precious")):
        with pytest.raises(ValueError, match="There is no backbone"):
            remove(name)
    assert (tmp_path / "precious").is_dir()
    assert [f.name for f in registry.iterdir()] == ["mine_spd"]


def test_broken_and_linked_folders_can_be_removed(save: Any, registry: Path, tmp_path: Path) -> None:
    target = add("mine_spd", save(), "test_efficientnet").folder.rename(tmp_path / "elsewhere")
    (registry / "linked_spd").symlink_to(target)
    (registry / "broken_spd").mkdir()
    remove("linked_spd")
    remove("broken_spd")
    assert not list(registry.iterdir())
    assert len(list(target.iterdir())) == 3


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
    save: Any, registry: Path, tmp_path: Path, images: Tensor
) -> None:
    add("mine_spd", save(), "test_efficientnet")
    expected = features("mine_spd", images)
    torch.save(images, tmp_path / "images.pt")
    paths = [registry / "mine_spd", tmp_path / "images.pt", tmp_path / "out.pt"]
    subprocess.run([sys.executable, "-c", PLUGIN_FREE, *map(str, paths)], check=True, cwd=tmp_path)
    found = torch.load(tmp_path / "out.pt")
    # another process may share its work among threads in another way: the last digits may differ
    for ours, theirs in zip(found["timm"], expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(found["anomalib"]["blocks.2"], expected[2])
    torch.testing.assert_close(found["anomalib"]["blocks.3"], expected[3])
