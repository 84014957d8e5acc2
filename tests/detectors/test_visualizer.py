"""Pictures of predictions: maps and outlines lie where they are in the photograph."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import ImageItem
from anomalib.engine import Engine
from anomalib.models import Padim
from anomalib.post_processing import PostProcessor
from anomalib.visualization import ImageVisualizer
from PIL import Image, ImageColor
from torchvision.transforms.v2 import CenterCrop, Compose, Resize, Transform
from torchvision.tv_tensors import Mask

from anomalib_spd.data import Sample
from anomalib_spd.detectors.pictures import GAP, HEADER, PANEL, TRUTH
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from anomalib_spd.detectors.visualizer import CONTACT_GRID, PhotographVisualizer, inspected_region

CROPPED = Compose([Resize((256, 256)), CenterCrop((224, 224))])
WHOLE = Resize((256, 256))


@pytest.mark.parametrize(
    ("transform", "height", "width", "region"),
    [
        (None, 300, 400, (0, 0, 400, 300)),
        (WHOLE, 300, 400, (0, 0, 400, 300)),
        (CROPPED, 256, 256, (16, 16, 240, 240)),
        (CROPPED, 300, 400, (25, 18.75, 375, 281.25)),
        (Compose([CenterCrop((200, 100)), Resize((64, 64))]), 300, 400, (150, 50, 250, 250)),
    ],
)
def test_the_region_that_a_detector_sees(
    transform: Transform | None, height: int, width: int, region: tuple[float, ...]
) -> None:
    assert inspected_region(transform, height, width) == pytest.approx(region, abs=0.05)


@pytest.mark.parametrize("size", [(256, 256), (400, 300), (120, 240)])
@pytest.mark.parametrize("transform", [None, WHOLE, CROPPED])
def test_a_spot_of_the_photograph_is_where_it_was_in_the_map(
    transform: Transform | None, size: tuple[int, int], tmp_path: Path
) -> None:
    width, height = size
    at_x, at_y, reach = int(0.7 * width), int(0.3 * height), max(4, min(size) // 20)
    photograph = torch.zeros(3, height, width)
    photograph[:, at_y - reach : at_y + reach, at_x - reach : at_x + reach] = 1
    file = tmp_path / "spot.png"
    Image.fromarray((photograph.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(file)
    # an ideal detector: its map is the brightness of what it sees
    seen = photograph[None] if transform is None else transform(photograph[None])
    item = ImageItem(image=seen[0], image_path=str(file), anomaly_map=seen[0, 0], pred_score=torch.tensor(0.9))
    picture = np.asarray(PhotographVisualizer().visualize(item, transform)).astype(float).sum(2)
    shown = PANEL / max(size)
    left = (PANEL - round(width * shown)) // 2
    for column in (0, 1):
        start = GAP + column * (PANEL + GAP) + left
        panel = picture[HEADER : HEADER + round(height * shown), start : start + round(width * shown)]
        rows, columns = np.nonzero(panel > 0.9 * panel[int(at_y * shown), int(at_x * shown)])
        # not the bright border that is not inspected
        near = np.maximum(np.abs(rows - at_y * shown), np.abs(columns - at_x * shown)) < 0.1 * PANEL
        assert np.median(rows[near]) == pytest.approx(at_y * shown, abs=3)
        assert np.median(columns[near]) == pytest.approx(at_x * shown, abs=3)


@pytest.mark.parametrize("from_file", [True, False])
@pytest.mark.parametrize("size", [(256, 256), (400, 300), (120, 240)])
@pytest.mark.parametrize("transform", [None, WHOLE, CROPPED])
def test_the_true_outline_lies_around_the_defect(
    transform: Transform | None, size: tuple[int, int], from_file: bool, tmp_path: Path
) -> None:
    width, height = size
    # as shares of the photograph: in the upper right, and inside the crop
    box = [round(share * side) for share, side in zip((0.6, 0.2, 0.8, 0.3), (*size, *size), strict=True)]
    mask = np.zeros((height, width), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 255
    photograph, file = tmp_path / "photograph.png", tmp_path / "mask.png"
    Image.new("RGB", size, "#804020").save(photograph)
    Image.fromarray(mask).save(file)
    cropped = Mask(torch.from_numpy(mask > 0)[None])
    cropped = cropped if transform is None else transform(cropped)
    truth = {"mask_path": str(file)} if from_file else {"gt_mask": cropped[0]}
    item = ImageItem(image=torch.zeros(3, 8, 8), image_path=str(photograph), **truth)
    picture = np.asarray(PhotographVisualizer().visualize(item, transform))
    scale = PANEL / max(size)
    start = GAP + (PANEL - round(scale * width)) // 2
    for column in (0, PANEL + GAP):
        panel = picture[HEADER : HEADER + round(scale * height), start + column : start + column + round(scale * width)]
        rows, columns = np.nonzero((panel == ImageColor.getrgb(TRUTH)).all(2))
        # two pixels around the defect
        found = (columns.min() + 2, rows.min() + 2, columns.max() - 1, rows.max() - 1)
        assert found == pytest.approx(tuple(scale * edge for edge in box), abs=2)


@pytest.mark.parametrize("color", ["#000000", "#b4b5b7", "#ffffff"])
def test_what_was_not_inspected_is_seen_on_photographs_of_any_brightness(color: str, tmp_path: Path) -> None:
    file = tmp_path / "photograph.png"
    Image.new("RGB", (256, 256), color).save(file)
    item = ImageItem(image=torch.zeros(3, 224, 224), image_path=str(file), anomaly_map=torch.zeros(224, 224))
    picture = np.asarray(PhotographVisualizer().visualize(item, CROPPED).convert("L")).astype(int)
    panel = picture[HEADER : HEADER + PANEL, GAP : GAP + PANEL]
    # 16 of 256 pixels on each edge; photograph inside, stripes outside
    assert np.ptp(panel[16:240, 16:240]) == 0
    for edge in (panel[:16], panel[240:], panel[:, :16], panel[:, 240:]):
        assert np.ptp(edge) > 30


def _pictures(folder: Path, crop: tuple[int, int] | None, visualizer: PhotographVisualizer) -> Path:
    model = Padim(
        backbone="efficientnet_lite0_in1k",
        layers=["blocks.2"],
        n_features=10,
        pre_processor=BackbonePreProcessor((64, 64), crop),
        visualizer=visualizer,
    )
    engine = Engine(default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
    engine.train(model=model, datamodule=Sample(folder=folder / "sample"))
    (sheet,) = folder.rglob(CONTACT_GRID)
    return sheet


@pytest.mark.parametrize("crop", [None, (48, 48)])
def test_a_stock_detector_ends_with_a_contact_grid(
    crop: tuple[int, int] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = _pictures(tmp_path, crop, PhotographVisualizer(max_images=4))
    assert f"Contact sheet of the images: {sheet}" in capsys.readouterr().out.replace("\n", "")
    with Image.open(sheet) as picture:
        width, height = picture.size
    # four of them in two rows of three
    assert width > 3 * 2 * PANEL
    assert 2 * (HEADER + PANEL) < height < 3 * (HEADER + PANEL)
    # one picture for each test image
    others = [path for path in sheet.parent.rglob("*.png") if path != sheet]
    assert len(others) == 25
    assert {Image.open(path).size for path in others} == {(2 * PANEL + 3 * GAP, HEADER + PANEL + GAP)}


def test_scores_of_no_common_scale_are_refused(tmp_path: Path) -> None:
    model = Padim(
        backbone="efficientnet_lite0_in1k",
        layers=["blocks.2"],
        n_features=10,
        post_processor=PostProcessor(enable_normalization=False),
        visualizer=PhotographVisualizer(),
    )
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False)
    with pytest.raises(ValueError, match="draws scores from 0 to 1, and the post-processor has enable_normalization"):
        engine.fit(model, datamodule=Sample(folder=tmp_path / "sample"))


def test_arguments() -> None:
    with pytest.raises(ValueError, match="max_images is 0, expected 1 or more"):
        PhotographVisualizer(max_images=0)
    with pytest.raises(ValueError, match="this image has no image_path"):
        PhotographVisualizer().visualize(ImageItem(image=torch.rand(3, 8, 8)))


def test_what_is_exported_needs_stock_anomalib_alone() -> None:
    assert type(pickle.loads(pickle.dumps(PhotographVisualizer()))) is ImageVisualizer
