"""Batches of one category each, and the replay images beside them."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_spd.data import CategoryFolder, SyntheticParts
from anomalib_spd.data.categories import CategorySampler

LABELS = [0] * 9 + [1] * 4 + [2] * 3 + [3] * 8 + [-1] * 5


def _sampler(size: int = 4, background: int = 2, **settings: int) -> CategorySampler:
    return CategorySampler(LABELS, size, background, **{"num_replicas": 1, "rank": 0, "seed": 0, **settings})


def _groups(sampler: CategorySampler, size: int = 6) -> list[list[int]]:
    items = list(sampler)
    assert len(items) == len(sampler)
    return [items[start : start + size] for start in range(0, len(items), size)]


def test_groups_are_of_one_category_and_no_item_comes_twice_in_an_epoch() -> None:
    groups = _groups(_sampler())
    # two of category 0, one of category 1, none of category 2, two of category 3
    assert Counter(LABELS[group[0]] for group in groups) == {0: 2, 1: 1, 3: 2}
    assert all(len({LABELS[item] for item in group[:4]}) == 1 for group in groups)
    assert all([LABELS[item] for item in group[4:]] == [-1, -1] for group in groups)
    assert max(Counter(item for group in groups for item in group[:4]).values()) == 1
    # five items without a category fill ten positions: each comes twice
    assert set(Counter(item for group in groups for item in group[4:]).values()) == {2}


def test_epochs_group_and_order_anew_and_can_be_repeated() -> None:
    sampler = _sampler()
    first, again = list(sampler), list(_sampler())
    assert first == again
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    assert second == list(_sampler(epoch=1))
    assert first != list(_sampler(seed=1))
    sets = [{frozenset(group[:4]) for group in _groups(_sampler(epoch=epoch))} for epoch in (0, 1)]
    assert sets[0] != sets[1]


def test_a_first_epoch_may_begin_within() -> None:
    whole = list(_sampler(epoch=2))
    sampler = _sampler(epoch=2, skip=12)
    assert list(sampler) == whole[12:]
    sampler.set_epoch(3)
    assert list(sampler) == list(_sampler(epoch=3))


def test_processes_share_an_epoch() -> None:
    """Of five groups two come in each of two processes; none in both."""
    shares = [_groups(_sampler(num_replicas=2, rank=rank)) for rank in range(2)]
    assert [len(share) for share in shares] == [2, 2]
    parts = [item for share in shares for group in share for item in group[:4]]
    assert len(set(parts)) == len(parts) == 16
    background = [item for share in shares for group in share for item in group[4:]]
    assert set(Counter(background).values()) <= {1, 2}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three categories of one color each, 5, 4 and 2 images, and a folder of white images beside it."""
    for category, (name, count) in enumerate({"gear": 5, "nut": 4, "tile": 2}.items()):
        for number in range(count):
            _write(tmp_path / "categories" / name / f"{number}.png", 50 + 50 * category)
    for number in range(3):
        _write(tmp_path / "anything" / f"{number}.png", 255)
    return tmp_path


def _write(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 24, 3), value, np.uint8)).save(path)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_a_folder(tree: Path, workers: int) -> None:
    data = CategoryFolder(
        tree / "categories",
        batch_size=2,
        replay_images=tree / "anything",
        replay_per_batch=1,
        image_size=16,
        num_workers=workers,
    )
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 5
    for images, labels in batches:
        assert images.shape == (3, 3, 16, 16)
        assert labels[0] == labels[1]
        assert labels[2] == -1
        expected = torch.tensor([50 + 50 * int(labels[0])] * 2 + [255]).view(3, 1, 1, 1)
        assert (images == expected).all()


def test_without_replay_images_batches_are_parts_alone(tree: Path) -> None:
    data = CategoryFolder(tree / "categories", batch_size=4, image_size=16, num_workers=0)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 2
    assert all((labels == labels[0]).all() and labels[0] in (0, 1) for _, labels in batches)


def test_a_damaged_file_is_replaced_by_another_of_its_category(tmp_path: Path) -> None:
    """CrossImageSPD cannot train on a batch of two categories."""
    for category in range(3):
        for number in range(40):
            _write(tmp_path / str(category) / f"{number}.png", 50 + 50 * category)
    (tmp_path / "1" / "7.png").write_bytes(b"no image")
    data = CategoryFolder(tmp_path, batch_size=4, image_size=16, num_workers=0)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 30
    for images, labels in batches:
        assert (labels == labels[0]).all()
        assert (images == 50 + 50 * int(labels[0])).all()
    assert data.images is not None
    assert [path.name for path in data.images.unreadable] == ["7.png"]


def test_errors(tree: Path) -> None:
    with pytest.raises(
        ValueError, match="11 images of 3 categories, at most 5 of one, but a batch takes 6 of one category"
    ):
        CategoryFolder(tree / "categories", batch_size=6, num_workers=0).setup("fit")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        CategoryFolder(tree / "categories", batch_size=2, replay_images=tree / "nowhere", num_workers=0).setup("fit")
    for settings in ({"batch_size": 0}, {"replay_per_batch": -1}):
        with pytest.raises(ValueError, match="batch_size must be 1 or more, replay_per_batch must not be negative"):
            CategoryFolder(tree / "categories", **settings)  # type: ignore[arg-type]


def test_synthetic_parts_are_made_when_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = SyntheticParts(tmp_path / "parts", categories=3, images_per_category=4, batch_size=2, num_workers=0)
    with caplog.at_level(logging.WARNING):
        data.prepare_data()
    assert "3 categories of parts, 4 images of each. This is done once." in caplog.text
    caplog.clear()
    data.prepare_data()
    assert not caplog.text
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 6
    assert all(images.shape == (2, 3, 256, 256) and images.dtype == torch.uint8 for images, _ in batches)
    with pytest.raises(ValueError, match="12 images of 3 categories, at most 4 of one, but a batch takes 5"):
        SyntheticParts(tmp_path / "parts", categories=3, images_per_category=4, batch_size=5, num_workers=0).setup(
            "fit"
        )
