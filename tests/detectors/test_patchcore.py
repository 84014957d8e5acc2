"""FastPatchcore is stock PatchCore, but for the time."""

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from anomalib.cli.cli import AnomalibCLI
from anomalib.deploy import ExportType
from anomalib.engine import Engine
from anomalib.models import Patchcore
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from lightning.pytorch import seed_everything

from anomalib_spd.data import Sample
from anomalib_spd.detectors import FastPatchcore, k_center_greedy
from anomalib_spd.detectors.patchcore import FastPatchcoreModel
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from tests.conftest import reloads_checkpoints

ARGUMENTS: dict[str, Any] = {
    "backbone": "efficientnet_lite0_spd",
    "layers": ["blocks.2", "blocks.4"],
    "coreset_sampling_ratio": 0.05,
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sample")


def _engine(folder: Path) -> Engine:
    return Engine(default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)


def _train(detector: type[Patchcore], sample: Path, folder: Path) -> tuple[Patchcore, Engine, dict[str, float]]:
    seed_everything(0, verbose=False)
    pre_processor = BackbonePreProcessor((72, 72), (64, 64))
    model = detector(**ARGUMENTS, pre_processor=pre_processor, visualizer=False)
    engine = _engine(folder)
    (metrics,) = engine.train(model, datamodule=Sample(folder=sample))
    return model, engine, dict(metrics)


@pytest.fixture(scope="module")
def trained(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Patchcore, Engine, dict[str, float]]:
    return _train(FastPatchcore, sample, tmp_path_factory.mktemp("fast"))


def test_is_stock_in_bank_and_metrics(
    trained: tuple[Patchcore, Engine, dict[str, float]], sample: Path, tmp_path: Path
) -> None:
    ours, _, metrics = trained
    stock, _, expected = _train(Patchcore, sample, tmp_path)
    assert ours.model.memory_bank.shape == (int(0.05 * 24 * 8 * 8), 152)
    assert torch.equal(ours.model.memory_bank, stock.model.memory_bank)
    assert ours.model.embedding_store == []
    assert metrics.keys() >= {"image_AUROC", "pixel_AUROC"}
    assert metrics == pytest.approx(expected, abs=1e-4)  # predictions are stock's but for rounding


@reloads_checkpoints
def test_stock_loads_its_checkpoint(trained: tuple[Patchcore, Engine, dict[str, float]]) -> None:
    ours, engine, _ = trained
    checkpoint = engine.trainer.checkpoint_callback.best_model_path
    stock = Patchcore.load_from_checkpoint(checkpoint).eval()
    assert type(stock) is Patchcore
    assert torch.equal(stock.model.memory_bank, ours.model.memory_bank)
    _assert_equal_predictions(stock, ours, torch.rand(1, 3, 100, 100))


def test_is_exported_as_stock(trained: tuple[Patchcore, Engine, dict[str, float]], tmp_path: Path) -> None:
    ours, engine, _ = trained
    path = engine.export(ours, ExportType.TORCH, export_root=tmp_path)
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    modules = {name.split(".")[0] for operation, name, _ in pickletools.genops(pickled) if operation.name == "GLOBAL"}
    assert "anomalib" in modules
    assert "anomalib_spd" not in modules
    exported = torch.load(path, weights_only=False)["model"].eval()
    assert type(exported) is Patchcore
    _assert_equal_predictions(exported, ours, torch.rand(1, 3, 100, 100))


def _assert_equal_predictions(stock: Patchcore, ours: Patchcore, images: torch.Tensor) -> None:
    expected, found = stock(images), ours.eval()(images)
    torch.testing.assert_close(found.pred_score, expected.pred_score, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.anomaly_map, expected.anomaly_map, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_neighbors", [1, 9])
@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 3, 96, 64), (2, 3, 100, 72)])
def test_scores_and_maps_are_stocks(shape: tuple[int, ...], num_neighbors: int) -> None:
    stock = Patchcore(**ARGUMENTS, num_neighbors=num_neighbors).eval()
    ours = FastPatchcore(**ARGUMENTS, num_neighbors=num_neighbors).eval()
    stock.model.memory_bank = ours.model.memory_bank = torch.randn(500, 152)
    images = torch.randn(shape)
    expected, found = stock.model(images), ours.model(images)
    for one, other in zip(expected[:4], found[:4], strict=True):
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)
    assert found.anomaly_map.shape == (shape[0], 1, *shape[2:])


@pytest.mark.parametrize("neighbors", [1, 5])
@pytest.mark.parametrize("points", [3, 400])
def test_any_network_and_few_points_are_stocks(neighbors: int, points: int) -> None:
    stock = PatchcoreModel(["layer1", "layer2"], "test_resnet", pre_trained=False, num_neighbors=neighbors).eval()
    images = torch.randn(3, 3, 64, 96)
    stock.train()
    bank = stock(images)
    stock.eval()
    stock.memory_bank = bank[torch.randperm(len(bank))[:points]] + 0.1 * torch.randn(points, bank.shape[1])
    found, expected = FastPatchcoreModel.of(stock)(images), stock(images)
    torch.testing.assert_close(found.pred_score, expected.pred_score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.anomaly_map, expected.anomaly_map, rtol=1e-4, atol=1e-5)


def test_an_empty_bank_is_refused() -> None:
    with pytest.raises(ValueError, match="Memory bank is empty"):
        FastPatchcore(**ARGUMENTS).eval().model(torch.rand(1, 3, 64, 64))


def test_takes_half_precision() -> None:
    banks = []
    for detector in (Patchcore, FastPatchcore):
        seed_everything(0, verbose=False)
        model = detector(**ARGUMENTS, precision="float16")
        model.model.embedding_store.append(torch.randn(100, 152).half())
        model.fit()
        banks.append(model.model.memory_bank)
    assert banks[0].dtype == torch.float16
    assert torch.equal(*banks)


def test_has_nothing_to_choose_from_before_training() -> None:
    with pytest.raises(ValueError, match="no training batch"):
        FastPatchcore(**ARGUMENTS).fit()


def test_is_named_in_a_config_file(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yaml"
    pre_processor = {
        "class_path": "anomalib_spd.detectors.pre_processing.BackbonePreProcessor",
        "init_args": {"image_size": [64, 64]},
    }
    arguments = {**ARGUMENTS, "pre_processor": pre_processor, "visualizer": False}
    config.write_text(
        yaml.safe_dump(
            {
                "model": {"class_path": "anomalib_spd.detectors.FastPatchcore", "init_args": arguments},
                "data": {"class_path": "anomalib_spd.data.Sample", "init_args": {"folder": str(sample)}},
                "trainer": {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
                "default_root_dir": str(tmp_path),
            }
        )
    )
    sampled = []

    class Recorded(k_center_greedy.KCenterGreedy):
        def sample_coreset(self) -> torch.Tensor:
            sampled.append(self.coreset_size)
            return super().sample_coreset()

    monkeypatch.setattr("anomalib_spd.detectors.patchcore.KCenterGreedy", Recorded)
    AnomalibCLI(["fit", "--config", str(config)])
    assert sampled == [int(0.05 * 24 * 8 * 8)]
