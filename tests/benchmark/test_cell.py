"""A cell is the run that its user would have started by hand."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import Visa
from anomalib.engine import Engine
from anomalib.metrics import Evaluator
from anomalib.models import Padim, Patchcore
from anomalib.models.components import AnomalibModule
from lightning.pytorch import seed_everything

from anomalib_spd.benchmark import cell
from anomalib_spd.benchmark.features import SharedFeatures
from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.results import Cell
from anomalib_spd.detectors.operating_point import JSON, OperatingPoint
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from anomalib_spd.metrics import AUROC, AUPR_step
from tests.benchmark.grids import LAYERS, draw_images, small_grid, small_registry


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cell")
    draw_images(folder, "one")
    draw_images(folder, "two", masks=False)
    with small_registry(folder):
        yield folder


def plan(root: Path, detector: str) -> cell.Plan:
    grid = Grid(**small_grid(root))
    which = Cell("a", detector, "one", 3)
    model, data = grid.model_config(which), grid.data_config(which)
    data["init_args"].update(train_batch_size=1, eval_batch_size=1)
    return cell.Plan(which, model, data, accelerator="cpu")


@pytest.mark.parametrize(
    ("detector", "stock", "arguments"),
    [("PaDiM", Padim, {"n_features": 10}), ("PatchCore 0.1", Patchcore, {"coreset_sampling_ratio": 0.1})],
)
def test_figures_are_those_of_stock_anomalib(
    root: Path, tmp_path: Path, detector: str, stock: Any, arguments: dict[str, Any]
) -> None:
    record, scores = cell.run(plan(root, detector), SharedFeatures("small_a", LAYERS))
    assert record["features_shared"]

    torch.manual_seed(99)
    # one image at a time, as shared features pass the network: in company they differ in the last digits, and so may ties
    data = Visa(root, category="one", num_workers=0, train_batch_size=1, eval_batch_size=1)
    seed_everything(3, workers=True)
    metrics = [
        AUROC(["pred_score", "gt_label"], prefix="image_"),
        AUROC(["anomaly_map", "gt_mask"], prefix="pixel_"),
        AUPR_step(["anomaly_map", "gt_mask"], prefix="pixel_"),
    ]
    model = stock(
        backbone="small_a",
        layers=LAYERS,
        **arguments,
        pre_processor=BackbonePreProcessor((80, 80), (64, 64)),
        post_processor=False,
        evaluator=Evaluator(test_metrics=metrics),
        visualizer=False,
    )
    # the rest as it comes, but for validation, which would draw a random number before the coreset does
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", limit_val_batches=0)
    (figures,) = engine.train(model, datamodule=data)
    assert figures == pytest.approx({name: record["metrics"][name] for name in figures}, abs=1e-6)
    assert len(scores.image_label) == 9


def test_drawn_defects_choose_an_operating_point(root: Path) -> None:
    """The threshold, and the false alarms at it, are those of anomalib's own run with the card."""
    normal = plan(root, "PaDiM")
    data = {
        "class_path": "anomalib_spd.data.SyntheticValidation",
        "init_args": {"datamodule": {**normal.data, "init_args": {**normal.data["init_args"], "category": "one"}}},
    }
    record, scores = cell.run(replace(normal, data=data, files_sha256=None))
    point = record["operating_point"]
    module = cell.ready_data(data)
    seed_everything(normal.cell.seed, workers=True)
    settings = {**normal.model["init_args"], "visualizer": False}
    model = cell.build(AnomalibModule, {**normal.model, "init_args": settings})
    folder = root / "card"
    Engine(accelerator="cpu", callbacks=[OperatingPoint(folder)], logger=False, default_root_dir=folder).fit(
        model, datamodule=module
    )
    card = json.loads((folder / JSON).read_text())
    assert point["image_threshold"] == pytest.approx(card["image_threshold"], rel=1e-4)
    assert {name: point[name] for name in card.keys() & point.keys() - {"image_threshold"}} == {
        name: card[name] for name in card.keys() & point.keys() - {"image_threshold"}
    }
    flagged = scores.image_score > point["image_threshold"]
    assert point["test_false_alarms"] == (flagged & ~scores.image_label).sum()
    assert point["test_missed"] == (~flagged & scores.image_label).sum()


def test_a_failure_tells_what_was_tried(root: Path) -> None:
    try:
        raise ValueError("no such thing")
    except ValueError as error:
        record = cell.failure(plan(root, "PaDiM"), error)
    assert record["status"] == "failed"
    assert record["error"]["type"] == "ValueError"
    assert record["error"]["message"] == "no such thing"
    assert "test_cell.py" in record["error"]["traceback"]
    assert record["config"]["model"]["init_args"]["backbone"] == "small_a"
    assert record["metrics"] == {}
