"""The pre-processor is stock's transform, and a guard."""

from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.data import Visa
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore

from anomalib_spd.data import Sample
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor

NAME = "efficientnet_lite0_in1k"


@pytest.mark.parametrize("crop", [None, (96, 80)])
def test_equals_the_transform_of_stock_patchcore(crop: tuple[int, int] | None) -> None:
    image = torch.rand(2, 3, 150, 170)
    stock = Patchcore.configure_pre_processor(image_size=(128, 112), center_crop_size=crop)
    ours = BackbonePreProcessor(image_size=(128, 112), center_crop_size=crop)
    assert torch.equal(ours(image), stock(image))
    assert torch.equal(ours.transform(image), stock.transform(image))


def test_a_crop_larger_than_the_image_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"center crop of \(64, 300\) does not fit into an image of \(256, 256\)"):
        BackbonePreProcessor(center_crop_size=(64, 300))


def _engine(folder: Path) -> Engine:
    return Engine(default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Visa:
    return Sample(folder=tmp_path_factory.mktemp("sample"))


@pytest.mark.parametrize(("detector", "more"), [(Patchcore, {}), (Padim, {"n_features": 30})])
def test_a_misspelt_layer_stops_the_detector_before_training(
    detector: type, more: dict[str, int], sample: Visa, tmp_path: Path
) -> None:
    pre_processor = BackbonePreProcessor((64, 64))
    model = detector(backbone=NAME, layers=["blocks.2", "blocks.44"], pre_processor=pre_processor, **more)
    with pytest.raises(ValueError, match=r"no layer 'blocks\.44'"):
        _engine(tmp_path).fit(model, datamodule=sample)


def test_is_restored_from_a_checkpoint(sample: Visa, tmp_path: Path) -> None:
    pre_processor = BackbonePreProcessor((72, 72), (64, 64))
    model = Padim(
        backbone=NAME, layers=["blocks.2", "blocks.4"], n_features=20, pre_processor=pre_processor, visualizer=False
    )
    engine = _engine(tmp_path)
    engine.fit(model, datamodule=sample)
    again = Padim.load_from_checkpoint(engine.trainer.checkpoint_callback.best_model_path)
    image = torch.rand(1, 3, 100, 100)
    assert again.pre_processor(image).shape == (1, 3, 64, 64)
    torch.testing.assert_close(again.eval()(image).anomaly_map, model.eval()(image).anomaly_map)


@pytest.mark.parametrize("crop", [None, 64])
def test_a_plain_number_stands_for_both_sides(crop: int | None) -> None:
    images = torch.rand(2, 3, 80, 160)
    both = BackbonePreProcessor((72, 72), crop and (crop, crop))
    assert torch.equal(BackbonePreProcessor(72, crop)(images), both(images))
    assert both(images).shape == (2, 3, crop or 72, crop or 72)


@pytest.mark.parametrize("size", [0, -1, (64,), (64, 64, 64), (64, 0), (64.0, 64.0), 64.0, "64"])
def test_sizes_that_are_none(size: Any) -> None:
    for arguments in ({"image_size": size}, {"center_crop_size": size}):
        with pytest.raises(
            ValueError, match=r"(image|center_crop)_size is .*, expected height and width, or one number"
        ):
            BackbonePreProcessor(**arguments)
