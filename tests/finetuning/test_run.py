"""``finetune`` as a notebook calls it."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anomalib.data import Visa
from torch import Tensor

from anomalib_spd.backbones import find
from anomalib_spd.finetuning import PatchClassification
from anomalib_spd.finetuning.run import finetune
from anomalib_spd.local import CategoryAdaptation
from anomalib_spd.local.base import LocalTerms
from tests.benchmark.grids import LAYERS

MODEL = partial(PatchClassification, "small_a", operation="paste", frozen_steps=0)


def make(
    root: Path, folder: Path, name: str, model: Any = MODEL, categories: tuple[str, ...] = ("one",), steps: int = 2
) -> Any:
    data = [Visa(root, each, num_workers=0) for each in categories]
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": steps, "max_epochs": -1}
    return finetune(model, data, name, folder=folder, batch_size=2, image_size=32, num_workers=0, **trainer)


def test_a_backbone_is_made_and_made_once(root: Path, home: Path, tmp_path: Path) -> None:
    made = make(root, tmp_path, "tuned")
    assert made == find("tuned")
    assert made.provenance.data == "6 normal training images of Visa one"
    assert make(root, tmp_path, "tuned") == made
    # the same from a model that is built, by the same seed
    other = make(root, tmp_path / "other", "other", MODEL(), ("one", "two"))
    assert other.provenance.data == "12 normal training images of Visa one, Visa two"


def test_what_compares_the_images_of_a_batch_has_one_category_in_each(root: Path, home: Path, tmp_path: Path) -> None:
    seen = list[list[int]]()

    class Recorded(CategoryAdaptation):
        def compare(self, images: Tensor, labels: Tensor) -> LocalTerms:
            seen.append(labels.tolist())
            return super().compare(images, labels)

    build = partial(Recorded, backbone="small_a", layers=LAYERS)
    make(root, tmp_path, "line", build, ("one", "two"), steps=24)
    assert {tuple(each) for each in seen} == {(0, 0), (1, 1)}


def test_a_taken_name_is_refused_before_anything_is_built(root: Path, home: Path, tmp_path: Path) -> None:
    def build() -> PatchClassification:
        raise AssertionError

    with pytest.raises(ValueError, match="'small_a' is taken"):
        make(root, tmp_path / "runs", "small_a", build)
    assert not (tmp_path / "runs").exists()
