"""Data modules are ready for a measurement: their draws depend on nothing else, and changed files are noticed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from anomalib.data import AnomalibDataModule, Folder, MVTecAD, Visa
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from anomalib_spd import files
from anomalib_spd.data import Sample
from anomalib_spd.data.ready import fingerprint, set_up
from anomalib_spd.files import content_digests


def folder(root: Path, **changes: object) -> Folder:
    """Stock images whose splits are drawn: half of the test set is for validation, and normal ones are from training."""
    one = root / "visa_pytorch/one"
    where = {"normal_dir": "train/good", "abnormal_dir": "test/bad", "mask_dir": "ground_truth/bad"}
    return Folder("one", root=one, num_workers=0, **{**where, **changes})


def listed(data: AnomalibDataModule) -> list[list[str]]:
    return [list(part.samples.image_path) for part in (data.train_data, data.val_data, data.test_data)]


@pytest.mark.parametrize(
    "changes", [{}, {"test_split_ratio": 0.5, "val_split_mode": "from_train"}, {"normal_test_dir": "test/good"}]
)
def test_what_is_drawn_does_not_depend_on_what_ran_before(root: Path, changes: dict[str, object]) -> None:
    sets = []
    for seed in range(4):
        torch.manual_seed(seed)
        data = folder(root, **changes)
        set_up(data, 0)
        assert torch.initial_seed() == seed
        sets.append((listed(data), fingerprint(data)))
        data.setup(TrainerFn.TESTING)  # as the trainer will
        sets.append((listed(data), fingerprint(data)))
    assert all(each == sets[0] for each in sets)


def test_synthetic_anomalies_are_alike_too(root: Path) -> None:
    sums = set()
    for seed in range(2):
        torch.manual_seed(seed)
        data = folder(root, normal_test_dir="test/good", test_split_mode="synthetic", val_split_mode="none")
        set_up(data, 0)
        sums.add(fingerprint(data))
    assert len(sums) == 1


def of(place: Path) -> str:
    data = Visa(place, category="one", num_workers=0)
    set_up(data, 0)
    return fingerprint(data)


def repaint(path: Path) -> None:
    """Change the last byte: size and time stay."""
    before = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda one: (one / "train/good/000.JPG").unlink(),
        lambda one: (one / "test/good/000.JPG").rename(one / "test/good/other.JPG"),
        lambda one: repaint(one / "train/good/000.JPG"),
        lambda one: repaint(one / "test/bad/000.JPG"),
        lambda one: repaint(one / "ground_truth/bad/000.png"),
        lambda one: (one / "test/good/000.JPG").rename(one / "train/good/006.JPG"),
    ],
    ids=["removed", "renamed", "training image", "test image", "mask", "split"],
)
def test_changed_files_are_other_files(own: Path, change: Callable[[Path], None]) -> None:
    place = own.parents[1]
    before = of(place)
    assert of(place) == before
    change(own)
    assert of(place) != before


def test_the_place_of_a_set_does_not_matter(own: Path, tmp_path: Path) -> None:
    shutil.copytree(own, tmp_path / "elsewhere/visa_pytorch/one")
    assert of(tmp_path / "elsewhere") == of(own.parents[1])


def test_files_are_read_again_only_if_they_have_changed(
    tmp_path: Path, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: read.append(path.name) or original(path))
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    first = content_digests(paths)
    assert [first[path] for path in paths] == [original(path) for path in paths]
    assert read == ["a", "b", "c"]
    assert content_digests(paths) == first
    repaint(paths[1])
    paths[2].unlink()
    assert content_digests(paths[:2])[paths[1]] != first[paths[1]]
    assert read == ["a", "b", "c", "b"]
    cache = registry / ".digests/files.json"
    assert sorted(Path(name).name for name in json.loads(cache.read_bytes())) == ["a", "b"]  # c is gone
    for damage in ("[", "[]", '{"x": 1}'):
        cache.write_text(damage)
        assert content_digests([paths[0]]) == {paths[0]: first[paths[0]]}


def test_a_misspelt_category_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: MVTecAD) -> None:
        raise AssertionError("nothing is there to download")

    monkeypatch.setattr(MVTecAD, "prepare_data", download)
    with pytest.raises(
        ValueError, match=r"^MVTecAD has no category 'bottel', did you mean 'bottle'\?; it has: bottle, "
    ):
        set_up(MVTecAD(tmp_path, category="bottel"), 0)


def test_a_class_of_ones_own_has_categories_of_its_own(tmp_path: Path) -> None:
    # it makes the folder while it prepares the data
    set_up(Sample("brick", folder=tmp_path / "new"), 0)


def test_a_category_of_ones_own_may_be_in_the_folder(root: Path) -> None:
    assert len(of(root)) == 64  # VisA has no "one"


def test_a_set_that_cannot_be_prepared_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: MVTecAD) -> None:
        raise OSError("no network")

    monkeypatch.setattr(MVTecAD, "prepare_data", download)
    with pytest.raises(OSError, match=r"^MVTecAD bottle: not all of it is in .*\(no network\): give the folder"):
        set_up(MVTecAD(tmp_path, category="bottle"), 0)


def test_damaged_masks_can_be_hashed(own: Path) -> None:
    before = of(own.parents[1])
    Image.new("L", (64, 64)).save(own / "ground_truth/bad/001.png")
    assert of(own.parents[1]) != before
