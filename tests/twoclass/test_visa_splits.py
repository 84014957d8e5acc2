"""VisA's official split files: their counts, and the draws from the few-shot pool."""

import csv
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anomalib.data import Visa
from anomalib.data.datamodules.image.visa import VISA_CATEGORIES
from PIL import Image

from tests.data.sets import counts, ready_visa

# of each object, as published: normal and anomalous images to train on, then those to test on
COUNTS = {
    "candle": {"1cls": (900, 0, 100, 100), "highshot": (600, 60, 400, 40), "fewshot": (200, 20, 800, 80)},
    "capsules": {"1cls": (542, 0, 60, 100), "highshot": (361, 60, 241, 40), "fewshot": (120, 20, 482, 80)},
    "cashew": {"1cls": (450, 0, 50, 100), "highshot": (300, 60, 200, 40), "fewshot": (100, 20, 400, 80)},
    "chewinggum": {"1cls": (453, 0, 50, 100), "highshot": (302, 60, 201, 40), "fewshot": (101, 20, 402, 80)},
    "fryum": {"1cls": (450, 0, 50, 100), "highshot": (300, 60, 200, 40), "fewshot": (100, 20, 400, 80)},
    "macaroni1": {"1cls": (900, 0, 100, 100), "highshot": (600, 60, 400, 40), "fewshot": (200, 20, 800, 80)},
    "macaroni2": {"1cls": (900, 0, 100, 100), "highshot": (600, 60, 400, 40), "fewshot": (200, 20, 800, 80)},
    "pcb1": {"1cls": (904, 0, 100, 100), "highshot": (602, 60, 402, 40), "fewshot": (201, 20, 803, 80)},
    "pcb2": {"1cls": (901, 0, 100, 100), "highshot": (601, 60, 400, 40), "fewshot": (200, 20, 801, 80)},
    "pcb3": {"1cls": (905, 0, 101, 100), "highshot": (604, 60, 402, 40), "fewshot": (201, 20, 805, 80)},
    "pcb4": {"1cls": (904, 0, 101, 100), "highshot": (603, 60, 402, 40), "fewshot": (201, 20, 804, 80)},
    "pipe_fryum": {"1cls": (450, 0, 50, 100), "highshot": (300, 60, 200, 40), "fewshot": (100, 20, 400, 80)},
}


@pytest.fixture(scope="session")
def splits(real_images: Path) -> Path:
    """The official split files."""
    folder = real_images.parent / "visa_splits"
    if not folder.is_dir():
        pytest.skip(f"needs the split files of amazon-science/spot-diff: {folder} does not exist")
    return folder


def build_tree(root: Path, splits: Path, categories: Iterable[str] = VISA_CATEGORIES) -> Path:
    """All files that the official split files name, as links to one small image and one small mask."""
    shutil.copytree(splits, root / "split_csv")
    Image.new("RGB", (8, 6), "gray").save(root / "image.jpg")
    Image.fromarray(np.full((6, 8), 3, np.uint8)).save(root / "mask.png")
    with (splits / "1cls.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name, source in ((row["image"], "image.jpg"), (row["mask"], "mask.png")):
                if name and row["object"] in categories:
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    os.link(root / source, root / name)
    return root


@pytest.fixture(scope="module")
def tree(splits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tree(tmp_path_factory.mktemp("visa"), splits)


def names(root: Path, part: Any) -> set[str]:
    return {Path(path).relative_to(root).as_posix() for path in part.samples.image_path}


def official(splits: Path, protocol: str, category: str, split: str, label: str) -> set[str]:
    with (splits / f"2cls_{protocol}.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["object"] == category]
    return {row["image"] for row in rows if (row["split"], row["label"]) == (split, label)}


@pytest.mark.parametrize("category", VISA_CATEGORIES)
@pytest.mark.parametrize("protocol", ["highshot", "fewshot"])
def test_the_official_counts(tree: Path, category: str, protocol: str) -> None:
    data = ready_visa(tree, category, protocol)
    assert counts(data) == COUNTS[category][protocol]
    assert not names(tree, data.train_data) & names(tree, data.test_data)
    assert data.drawn == []


def test_the_official_counts_add_up() -> None:
    totals = {it: tuple(map(sum, zip(*(c[it] for c in COUNTS.values()), strict=True))) for it in COUNTS["candle"]}
    assert totals == {
        "1cls": (8659, 0, 962, 1200),
        "highshot": (5773, 720, 3848, 480),
        "fewshot": (1924, 240, 7697, 960),
    }


def test_the_official_counts_of_one_class_in_stock_anomalib(splits: Path, tmp_path: Path) -> None:
    root = build_tree(tmp_path, splits)
    for category in VISA_CATEGORIES:
        data = Visa(root, category, num_workers=0)
        data.prepare_data()
        data.setup()
        assert counts(data) == COUNTS[category]["1cls"]


def test_few_shot_trains_on_a_part_of_high_shot(tree: Path) -> None:
    few, many = (ready_visa(tree, "pcb3", protocol) for protocol in ("fewshot", "highshot"))
    assert names(tree, few.train_data) < names(tree, many.train_data)


@pytest.mark.parametrize("category", ["capsules", "pcb4"])
def test_draws(tree: Path, splits: Path, category: str) -> None:
    pool = {label: official(splits, "fewshot", category, "train", label) for label in ("normal", "anomaly")}
    tested = official(splits, "fewshot", category, "test", "normal")
    tested |= official(splits, "fewshot", category, "test", "anomaly")
    seen = set()
    for draw in range(5):
        drawn = {}
        for shots in (5, 10):
            data = ready_visa(tree, category, "fewshot", shots, draw)
            drawn[shots] = names(tree, data.train_data)
            assert counts(data)[:2] == (shots, shots)
            assert data.drawn == sorted(drawn[shots])
            assert names(tree, data.test_data) == tested
            for images in pool.values():
                order = sorted(images, key=lambda path: hashlib.sha256(f"{draw}:{path}".encode()).hexdigest())
                assert drawn[shots] & images == set(order[:shots])
        assert drawn[5] < drawn[10] <= pool["normal"] | pool["anomaly"]
        assert not drawn[10] & tested
        seen.add(frozenset(drawn[5]))
    assert len(seen) == 5


def test_a_draw_is_the_same_in_another_folder(
    tree: Path, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = ready_visa(tree, "fryum", "fewshot", 5, 2)
    build_tree(tmp_path, splits, ["fryum"])
    lines = (tmp_path / "split_csv/2cls_fewshot.csv").read_text().splitlines()
    (tmp_path / "split_csv/2cls_fewshot.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    monkeypatch.chdir(tmp_path)
    caplog.clear()  # of the first draw, where a test before this one has lowered the level of all loggers
    with caplog.at_level("INFO", logger="anomalib_spd.twoclass"):
        there = ready_visa(Path(), "fryum", "fewshot", 5, 2)
        there.setup()
    assert there.drawn == here.drawn
    (record,) = caplog.records
    assert record.getMessage() == (
        "Draw 2: 5 of 100 normal and 5 of 20 anomalous training images: " + ", ".join(here.drawn)
    )
