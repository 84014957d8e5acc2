"""``anomalib-spd deploy``: the files score like the trained detector, and say how fast they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.engine import Engine
from anomalib.models import Patchcore

from anomalib_spd.cli.main import main
from anomalib_spd.deploy import export, measure, run
from anomalib_spd.deploy.detector import load
from tests.conftest import reloads_checkpoints
from tests.deploy.conftest import command, data_of

pytestmark = reloads_checkpoints


@pytest.fixture(scope="module")
def record(deployed: Path) -> dict[str, Any]:
    return dict(json.loads((deployed / "deploy.json").read_text()))


def test_float_files_score_like_the_trained_detector(record: dict[str, Any]) -> None:
    """Also images that are not square, gray, and larger than the network's: stock anomalib resizes those in another way."""
    assert record["trained"]["metrics"].keys() == set(measure.JUDGED)
    for name in ("torch", "onnx", "openvino"):
        each = record["formats"][name]
        assert each["score_difference"]["largest"] < 1e-4, name
        assert each["map_difference"]["largest"] < 1e-4, name
        # anomalib's threshold is the score of one image, which rounding may put on either side
        assert each["labels_flipped"] <= 1
        assert each["metrics"] == pytest.approx(record["trained"]["metrics"], abs=1e-4)
        for interval in each["differences"].values():
            assert interval["low"] - 1e-6 <= interval["value"] <= interval["high"] + 1e-6


def test_int8_is_smaller(record: dict[str, Any]) -> None:
    int8, real = record["formats"]["openvino-int8"], record["formats"]["openvino"]
    assert (
        1e-6 < int8["score_difference"]["mean"] < 0.5
    )  # of a random network: how near a trained one is, test_parity.py holds
    assert int8["bytes"] < real["bytes"]


def test_every_file_is_measured(deployed: Path, record: dict[str, Any], checkpoint: Path) -> None:
    bank = load(checkpoint, "Patchcore").model.memory_bank
    assert record["memory_bank_bytes"] == bank.numel() * 4 > 0
    threads = {"1", str(record["threads"])}
    assert record["trained"]["images_per_second"].keys() == threads
    assert [*record["formats"]] == [*export.FORMATS]
    for name, each in record["formats"].items():
        assert each["images_per_second"].keys() == threads
        assert min(each["images_per_second"].values()) > 0
        assert each["peak_memory_bytes"] > 1e7
        file = deployed / each["file"]
        assert file == deployed / "weights" / name / f"model{export.SUFFIXES[name]}"
        assert each["bytes"] == sum(part.stat().st_size for part in file.parent.iterdir())
    assert {path.name for path in deployed.iterdir()} == {"deploy.json", "README.md", "weights"}
    page = (deployed / "README.md").read_text()
    assert all(each["file"] in page for each in record["formats"].values())
    assert record["versions"].keys() >= {"anomalib", "torch", "openvino", "nncf", "onnxruntime"}


def test_the_trained_detector_is_lightnings(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    detector, data = load(checkpoint, "Patchcore"), data_of(images)
    data.prepare_data()
    data.setup()
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    expected = engine.predict(load(checkpoint, "Patchcore"), dataloaders=data.test_dataloader())
    trained = measure.Trained(detector)
    for index, batch in enumerate(expected):
        found = trained(data.test_data.collate_fn([data.test_data[index]]))
        torch.testing.assert_close(found.pred_score, batch.pred_score, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.anomaly_map, batch.anomaly_map, rtol=0, atol=1e-5)
        assert torch.equal(found.pred_label, batch.pred_label)


def test_only_the_backbone_is_quantized(deployed: Path) -> None:
    import openvino

    model = openvino.Core().read_model(deployed / "weights/openvino-int8/model.xml")
    order = [each for each in model.get_ordered_ops() if each.get_type_name() not in ("Constant", "Result")]
    quantized = [i for i, each in enumerate(order) if each.get_type_name() == "FakeQuantize"]
    layers = {"Convolution", "GroupConvolution"}
    readers = [
        reader.get_node().get_type_name()
        for index in quantized
        for reader in order[index].output(0).get_target_inputs()
    ]
    assert layers & {*readers}
    # distances to the memory bank are of matrix products
    products = [each for each in order if each.get_type_name() == "MatMul"]
    assert products
    for product in products:
        assert "FakeQuantize" not in {each.get_source_output().get_node().get_type_name() for each in product.inputs()}
    weights = {str(each.get_element_type()) for each in model.get_ops() if each.get_type_name() == "Constant"}
    assert any("i8" in each or "int8" in each for each in weights)


def test_the_torch_file_needs_no_plugin(deployed: Path) -> None:
    assert b"anomalib_spd" not in (deployed / "weights/torch/model.pt").read_bytes()


def test_the_class_is_that_of_the_runs_config(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.parents[2], tmp_path / "run")
    (tmp_path / "run/config.yaml").write_text("model: {class_path: anomalib.models.Patchcore}\n")
    copy = tmp_path / "run" / checkpoint.relative_to(checkpoint.parents[2])
    assert type(load(copy)) is Patchcore
    assert main(command(copy, images, tmp_path / "made", "--formats", "torch")) == 0
    assert [path.name for path in (tmp_path / "made/weights").iterdir()] == ["torch"]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def foreign(path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    ("changed", "more", "message"),
    [
        (truncated, ("--model", "Patchcore"), "is not a complete checkpoint of anomalib: it is damaged, cut off"),
        (foreign, ("--model", "Patchcore"), "holds no detector"),
        (Path.unlink, ("--model", "Patchcore"), "there is no checkpoint"),
        (None, (), "name the detector's class by --model"),
        (None, ("--model", "Patchcor"), "'Patchcor' is no detector of anomalib, did you mean 'Patchcore'?"),
        (None, ("--model", "Padim"), "is not a checkpoint of Padim"),
        (None, ("--formats", "onxx"), "unknown format 'onxx', did you mean 'onnx'?"),
        (None, ("--formats", "torch", "torch"), "give each format once"),
        (None, ("--model", "Patchcore", "--data.category", "three"), "Visa has no category 'three'"),
    ],
)
def test_what_is_wrong_is_said_before_the_work(
    changed: Any,
    more: tuple[str, ...],
    message: str,
    checkpoint: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = Path(shutil.copy(checkpoint, tmp_path / "model.ckpt"))
    if changed:
        changed(copy)
    before = {*tmp_path.iterdir()}
    assert main(command(copy, images, tmp_path / "made", *more)) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert message in line
    assert {*tmp_path.iterdir()} == before


def test_a_folder_that_exists_is_left_alone(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("mine")
    assert main(command(checkpoint, images, tmp_path, "--model", "Patchcore")) == 1
    assert "exists already: give another --output, or remove it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_missing_packages_are_named(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "nncf" else name)
    assert main(command(checkpoint, images, tmp_path / "made", "--model", "Patchcore")) == 1
    assert "error: nncf is missing: pip install 'anomalib_spd[deploy]'" in capsys.readouterr().err


class Unexportable(Patchcore):
    """Refuses as anomalib's VlmAd and AnomalyVFM do."""

    def to_onnx(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("Exporting to ONNX is not supported.")


def test_what_anomalib_cannot_export_leaves_nothing(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = command(
        checkpoint, images, tmp_path / "made", "--model", f"{__name__}.Unexportable", "--formats", "torch", "onnx"
    )
    assert main(args) == 1
    assert "anomalib cannot export Unexportable as onnx (NotImplementedError: Exporting" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_interrupted_leaves_nothing(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        (hidden,) = tmp_path.iterdir()
        assert (hidden / "weights/torch/model.pt").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "parity", interrupt)
    args = command(checkpoint, images, tmp_path / "made", "--model", "Patchcore", "--formats", "torch")
    assert main(args) == 130
    assert not [*tmp_path.iterdir()]
