"""Batches of good images and real defects of one category, with masks."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from PIL import Image

from anomalib_spd.data import DefectFolder
from anomalib_spd.data.defects import DefectSampler, decode_mask


def _write(path: Path, value: int, spot: bool = False) -> None:
    """Write a gray image of 20 x 24 px, or a mask with a spot of 6 x 6 px."""
    pixels = np.full((20, 24), value, np.uint8)
    if spot:
        pixels[2:8, 2:8] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _mvtec(folder: Path, value: int, good: int = 3, defects: int = 2, end: str = "_mask") -> None:
    """Write a category whose good images have the value, its defects one more."""
    for number in range(good):
        _write(folder / ("train" if number else "test") / "good" / f"{number}.png", value)
    for number in range(defects):
        _write(folder / "test" / f"hole{number % 2}" / f"{number}.png", value + 1)
        _write(folder / "ground_truth" / f"hole{number % 2}" / f"{number}{end}.png", 0, spot=True)


def _visa(folder: Path, value: int) -> None:
    """Write a category as VisA is downloaded."""
    for number in range(3):
        _write(folder / "Data" / "Images" / "Normal" / f"{number}.JPG", value)
        _write(folder / "Data" / "Images" / "Anomaly" / f"{number}.JPG", value + 1)
        _write(folder / "Data" / "Masks" / "Anomaly" / f"{number}.png", 0, spot=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Write three categories with defects, two without, and background."""
    _mvtec(tmp_path / "defects" / "gear", 50)
    _mvtec(tmp_path / "defects" / "nut", 100, good=4, defects=1, end="")
    _visa(tmp_path / "defects" / "pcb", 150)
    for number in range(4):
        _write(tmp_path / "normal" / "tile" / f"{number}.png", 200)
        _write(tmp_path / "normal" / "wood" / f"{number}.png", 220)
        _write(tmp_path / "background" / f"{number}.png", 255)
    return tmp_path


def _batches(root: Any, **settings: Any) -> list[tuple[torch.Tensor, ...]]:
    data = DefectFolder(root, **{"batch_size": 4, "batches": 40, "image_size": 16, "num_workers": 0, **settings})
    data.setup("fit")
    return list(data.train_dataloader())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_is_of_one_category_good_images_first(tree: Path, workers: int) -> None:
    batches = _batches(
        tree / "defects",
        normal=tree / "normal",
        replay_images=tree / "background",
        replay_per_batch=2,
        num_workers=workers,
    )
    assert len(batches) == 40
    values = torch.tensor([50, 100, 150, 200, 220, 255])
    with_defects = []
    for images, labels, masks in batches:
        assert images.dtype == masks.dtype == torch.uint8
        assert images.shape == (6, 3, 16, 16)
        assert masks.shape == (6, 1, 16, 16)
        assert labels.tolist() == [labels[0]] * 4 + [-1, -1]
        is_defect = torch.tensor([0, 0, 1, 1, 0, 0]) * (labels[0] < 3)
        assert (images == (values[labels] + is_defect).view(-1, 1, 1, 1)).all()
        assert torch.equal(masks.flatten(1).any(1), is_defect.bool())
        with_defects.append(bool(is_defect.any()))
    assert 15 <= sum(with_defects) <= 33  # of 24 expected
    assert {int(labels[0]) for _, labels, _ in batches} == set(range(5))


def test_masks_lie_on_their_images(tree: Path) -> None:
    """Both sides are resized: 6 of 24 px across, 6 of 20 px down."""
    mask = next(masks[-1, 0] for _, _, masks in _batches(tree / "defects" / "gear", defect_share=1.0))
    rows, columns = (mask.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
    assert (rows[0], rows[-1]) == pytest.approx((1.6, 5.4), abs=1)
    assert (columns[0], columns[-1]) == pytest.approx((1.3, 4.3), abs=1)


def test_thin_defects_are_not_lost(tmp_path: Path) -> None:
    pixels = np.zeros((400, 400), np.uint8)
    pixels[:, 200] = 255
    Image.fromarray(pixels).save(tmp_path / "crack.png")
    mask = decode_mask(tmp_path / "crack.png", 40)
    assert mask.any(2).all()
    assert mask.sum(2).max() <= 2


def test_a_category_may_be_given_by_itself_and_good_images_may_be_its_own(tree: Path) -> None:
    batches = _batches([tree / "defects" / "nut", tree / "defects" / "pcb"])
    # the nut alone has four good images
    assert {int(labels[0]) for _, labels, masks in batches if not masks.any()} == {0}
    assert {int(labels[0]) for _, labels, masks in batches if masks.any()} == {0, 1}


def test_good_images_alone_train_where_no_batch_has_defects(tree: Path) -> None:
    batches = _batches((), normal=tree / "normal", defect_share=0)
    assert not any(masks.any() for _, _, masks in batches)
    assert {int(images[0, 0, 0, 0]) for images, _, _ in batches} == {200, 220}
    assert all((images == images[:1]).all() for images, _, _ in batches)


def test_weights_choose_categories_and_leave_out(tree: Path) -> None:
    batches = _batches(
        tree / "defects",
        normal=tree / "normal",
        weights={"gear": 0, "nut": 9, "wood": 9},
        batches=200,
    )
    counts = Counter(int(images[0, 0, 0, 0]) for images, _, _ in batches)
    assert set(counts) == {100, 150, 200, 220}
    assert counts[100] > 4 * counts[150]
    assert counts[220] > 4 * counts[200]
    batches = _batches(tree / "defects", normal=tree / "normal", weights={"tile": 0})
    assert 200 not in {int(images[0, 0, 0, 0]) for images, _, _ in batches}


def test_data_modules_of_anomalib_bring_their_masks(tree: Path) -> None:
    gear = tree / "defects" / "gear"
    module = Folder(
        name="line 1",
        root=gear,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/hole0",
        mask_dir="ground_truth/hole0",
    )
    for images, _, masks in _batches((), datamodule=module, defect_share=1.0):
        assert images[:, 0, 0, 0].tolist() == [50, 50, 51, 51]
        assert masks.flatten(1).any(1).tolist() == [False, False, True, True]
    data = DefectFolder(tree / "defects", datamodule=module, weights={"line 1": 2.0})
    assert [each.name for each in data.categories()] == ["gear", "nut", "pcb", "line 1"]


def test_a_damaged_defect_is_replaced_by_another_and_a_black_mask_is_damage(tmp_path: Path) -> None:
    _mvtec(tmp_path / "gear", 50, good=60, defects=60)
    _mvtec(tmp_path / "nut", 100, good=60, defects=60)
    (tmp_path / "gear" / "test" / "hole1" / "7.png").write_bytes(b"no image")
    _write(tmp_path / "nut" / "ground_truth" / "hole0" / "8_mask.png", 0)
    data = DefectFolder(tmp_path, batches=200, batch_size=4, image_size=16, num_workers=0, defect_share=1.0)
    data.setup("fit")
    torch.manual_seed(0)
    for images, _, masks in data.train_dataloader():
        assert (images[:, 0, 0, 0] - images[0, 0, 0, 0]).tolist() == [0, 0, 1, 1]
        assert masks.flatten(1).any(1).tolist() == [False, False, True, True]
    assert data.images is not None
    assert sorted(path.name for path in data.images.unreadable) == ["7.png", "8.png"]


def _sampler(**where: int) -> DefectSampler:
    labels = [0] * 5 + [1] * 3 + [2] * 6 + [-1] * 3
    return DefectSampler(labels, [1.0, 1.0], 10, 4, 0.5, 1, **{"num_replicas": 1, "rank": 0, "seed": 0, **where})


def test_epochs_can_be_repeated_and_may_begin_within() -> None:
    whole = list(_sampler(epoch=2))
    assert len(whole) == len(_sampler()) == 50
    assert list(_sampler(epoch=2)) == whole
    assert list(_sampler(epoch=2, skip=15)) == whole[15:]
    assert list(_sampler(epoch=3)) != whole
    assert list(_sampler(epoch=2, seed=1)) != whole


def test_processes_draw_different_batches() -> None:
    first, second = (list(_sampler(num_replicas=2, rank=rank)) for rank in range(2))
    assert len(first) == len(second) == 50
    assert first != second


def test_errors(tree: Path) -> None:
    _mvtec(tree / "bare" / "solar", 10)
    for path in (tree / "bare" / "solar" / "ground_truth" / "hole1").iterdir():
        path.unlink()
    cases: list[tuple[type[Exception], str, Any, dict[str, Any]]] = [
        (ValueError, r"solar has 1 defects without a mask: .*1\.png.*weights: \{solar: 0\}", tree / "bare", {}),
        (ValueError, "gear has 3 good images, but a batch takes 4", tree / "defects", {"batch_size": 8}),
        (
            ValueError,
            "weights names hammer, but the categories are gear, nut, pcb",
            tree / "defects",
            {"weights": {"hammer": 1}},
        ),
        (ValueError, "no category with defects", (), {}),
        (ValueError, "several categories are named gear", [tree / "defects", tree / "defects" / "gear"], {}),
        (FileNotFoundError, "nowhere does not exist", tree / "nowhere", {}),
        (FileNotFoundError, "holds no category", tree / "background", {}),
        (ValueError, "defect_share must be from 0 to 1, got -0.1", tree, {"defect_share": -0.1}),
        (ValueError, "defect_share is 0, but gear, nut, pcb may have defects", tree / "defects", {"defect_share": 0}),
        (ValueError, "defect_share is 0, so normal is needed", (), {"defect_share": 0}),
        (
            ValueError,
            "normal has at most 4 images of a category with a weight above 0, but a batch takes 5",
            (),
            {"defect_share": 0, "normal": tree / "normal", "batch_size": 5},
        ),
        (ValueError, "weights must not be negative", tree, {"weights": {"gear": -1}}),
        (ValueError, "batch_size must be 2 or more, batches 1 or more, .* got 1, 40 and 4", tree, {"batch_size": 1}),
        (ValueError, "batches 1 or more, .* got 4, 0 and 4", tree, {"batches": 0}),
    ]
    for error, message, root, settings in cases:
        with pytest.raises(error, match=message) as raised:
            _batches(root, **settings)
        assert "\n" not in str(raised.value)


def test_hidden_and_system_entries_are_no_categories_and_no_images(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gear = tree / "defects" / "gear"
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        _mvtec(tree / "defects" / name, 10)
        for folder in ("train/good", "test/good", "test", "test/hole0", "ground_truth/hole0"):
            _write(gear / folder / name / "0.png", 10)
    for folder in ("train/good", "test/hole0", "ground_truth/hole0"):
        (gear / folder / "._1.png").write_bytes(b"no image")
        (gear / folder / "loop.png").symlink_to(gear / folder / "loop.png")
    data = DefectFolder(tree / "defects")
    found = data.categories()
    assert [each.name for each in found] == ["gear", "nut", "pcb"]
    assert [path.name for path in found[0].good] == ["1.png", "2.png", "loop.png", "0.png"]
    assert [path.name for path in found[0].defects] == ["0.png", "loop.png", "1.png"]
    assert f"3 hidden or system entries in {tree / 'defects'} are skipped" in caplog.text
    assert f"entries in {gear / 'test'} are skipped" in caplog.text
