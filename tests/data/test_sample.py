"""The embedded demo set: layout, stock reader, determinism, exact masks, concurrent calls, errors, no network."""

import multiprocessing
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anomalib.data import Visa
from jsonargparse import ArgumentParser
from PIL import Image
from skimage import data

from anomalib_spd.data.sample import datamodule as sample
from anomalib_spd.data.sample.datamodule import CATEGORIES, DEFECTS, IMAGES_PER_DEFECT, REGIONS, Sample

BAD = [(defect, number) for defect in DEFECTS for number in range(IMAGES_PER_DEFECT)]


def _make(root: Path, category: str) -> Path:
    Sample(category, root).prepare_data()
    return root / "visa_pytorch" / category


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root with all three categories."""
    folder = tmp_path_factory.mktemp("sample")
    for category in CATEGORIES:
        _make(folder, category)
    return folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("category", CATEGORIES)
def test_layout(root: Path, category: str) -> None:
    folder = root / "visa_pytorch" / category
    counts = {"train/good": 24, "test/good": 10, "test/bad": 15, "ground_truth/bad": 15}
    assert {str(f.parent.relative_to(folder)) for f in folder.rglob("*.png")} == set(counts)
    for subfolder, count in counts.items():
        files = list((folder / subfolder).iterdir())
        assert len(files) == count
        for file in files:
            with Image.open(file) as image:
                assert image.format == "PNG"
                assert image.size == (256, 256)
                assert image.mode == ("L" if subfolder == "ground_truth/bad" else "RGB")
    assert {f.name for f in (folder / "test/bad").iterdir()} == {f"{defect}_{number:03d}.png" for defect, number in BAD}
    assert "demo" in (folder / "README.txt").read_text(encoding="utf-8").lower()
    # Nothing temporary is left, and others may read the folder as far as the umask lets them.
    assert {f.name for f in folder.parent.iterdir()} == set(CATEGORIES)
    assert folder.stat().st_mode == (folder / "test").stat().st_mode


@pytest.mark.parametrize("data_module", [Visa, Sample])
def test_read_by_stock_visa_and_by_sample(root: Path, data_module: type[Visa]) -> None:
    where = {"folder": root, "texture": "gravel"} if data_module is Sample else {"root": root, "category": "gravel"}
    module = data_module(**where, num_workers=0)
    module.prepare_data()
    module.setup()
    assert (len(module.train_data), len(module.test_data)) == (24, 25)
    assert sum(int(item.gt_label) for item in module.test_data) == 15
    for item in module.test_data:
        assert item.image.shape == (3, 256, 256)
        assert bool(item.gt_mask.any()) == bool(item.gt_label)
    batch = next(iter(module.train_dataloader()))
    assert batch.image.shape == (8 if data_module is Sample else 24, 3, 256, 256)


def test_the_set_is_deterministic(root: Path, tmp_path: Path) -> None:
    assert _contents(_make(tmp_path, "brick")) == _contents(root / "visa_pytorch/brick")


def test_all_images_differ(root: Path) -> None:
    images = [f.read_bytes() for f in root.rglob("*.png") if f.parts[-3] != "ground_truth"]
    assert len(set(images)) == len(images) == 3 * 49


@pytest.mark.parametrize("category", CATEGORIES)
def test_masks_are_exact(root: Path, category: str) -> None:
    folder = root / "visa_pytorch" / category
    for defect, number in BAD:
        name = f"{defect}_{number:03d}"
        clean = sample.normal_image(category, "test", name).astype(int)
        image = np.asarray(Image.open(folder / f"test/bad/{name}.png")).astype(int)
        mask = np.asarray(Image.open(folder / f"ground_truth/bad/{name}.png"))
        assert set(np.unique(mask)) == {0, 255}
        change = np.abs(image - clean).max(axis=-1)
        np.testing.assert_array_equal(change > 0, mask == 255)
        # Visible, and small in relation to the image.
        assert (change[mask == 255] > 5).mean() > 0.75
        assert 100 < (mask == 255).sum() < 0.1 * mask.size


@pytest.mark.parametrize("category", CATEGORIES)
def test_drawn_lines_do_not_wrap_around_the_border(category: str) -> None:
    for defect, number in BAD:
        _, mask = sample.defective_image(category, defect, number)
        assert not mask[[0, -1]].any()
        assert not mask[:, [0, -1]].any()


def test_splits_are_cut_from_disjoint_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {split: set(range(512)[region]) for split, region in REGIONS.items()}
    assert not columns["train"] & columns["test"]
    # The widest window, rotated, fits in the narrower region: no image shows padding.
    widest = sample._WINDOW[1] * (np.cos(sample._MAX_ROTATION) + np.sin(sample._MAX_ROTATION))
    assert widest < min(map(len, columns.values()))
    for split, other in (("train", "test"), ("test", "train")):
        before = [sample.normal_image("grass", split, str(i)) for i in range(5)]
        photograph = data.grass() / 255.0
        photograph[:, REGIONS[other]] = 0
        with monkeypatch.context() as patch:
            patch.setattr(sample, "_photograph", lambda _category, changed=photograph: changed)
            after = [sample.normal_image("grass", split, str(i)) for i in range(5)]
        np.testing.assert_array_equal(before, after)


def test_two_processes_at_once(root: Path, tmp_path: Path) -> None:
    # Spawned processes would spend tens of seconds on importing anomalib again; these use no torch.
    with multiprocessing.get_context("fork").Pool(2) as pool:
        folders = pool.starmap(_make, [(tmp_path, "brick")] * 2)
    assert folders == [tmp_path / "visa_pytorch/brick"] * 2
    assert [f.name for f in (tmp_path / "visa_pytorch").iterdir()] == ["brick"]
    assert _contents(folders[0]) == _contents(root / "visa_pytorch/brick")


def test_the_slower_of_two_processes_discards_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "visa_pytorch/brick"

    save = Image.Image.save

    def overtaken(image: Image.Image, path: Path, **settings: Any) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "theirs").touch()
        save(image, path, **settings)

    monkeypatch.setattr(Image.Image, "save", overtaken)
    assert _make(tmp_path, "brick") == folder
    assert [f.name for f in tmp_path.rglob("*")] == ["visa_pytorch", "brick", "theirs"]


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **_settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left on device"):
        _make(tmp_path, "brick")
    assert not list((tmp_path / "visa_pytorch").iterdir())


def test_an_existing_folder_is_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "visa_pytorch/grass"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    Sample("grass", tmp_path).prepare_data()
    assert _contents(folder) == {"mine.txt": b"mine"}


def test_no_network_and_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        pytest.fail("network or download")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("anomalib.data.datamodules.image.visa.download_and_extract", refuse)
    monkeypatch.setattr(sample, "COUNTS", {"train/good": 2, "test/good": 1})  # to save time
    sample._photograph.cache_clear()
    module = Sample(folder=tmp_path)
    assert module.category == CATEGORIES[0]
    module.prepare_data()
    module.setup()
    assert len(module.train_data) == 2


def test_unknown_category(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'capsules'.*brick, grass, gravel"):
        Sample("capsules", tmp_path)


def test_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"cannot write the demo set.*another root.*file"):
        Sample(folder=tmp_path / "file").prepare_data()


def test_defaults() -> None:
    module = Sample()
    assert module.root == Path("datasets/anomalib_spd_sample")
    assert (module.train_batch_size, module.eval_batch_size, module.num_workers) == (8, 8, 0)


@pytest.mark.parametrize("argument", ["root", "category"])
def test_the_names_of_visa_are_errors(argument: str) -> None:
    with pytest.raises(TypeError, match=f"no argument {argument}"):
        Sample(**{argument: "x"})


def test_replaces_visa_on_the_command_line_without_its_folder() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Visa, "data")
    visa = ["--data", "anomalib.data.Visa", "--data.root", "./datasets/visa", "--data.category", "candle"]
    arguments = ["--data", "anomalib_spd.data.Sample", "--data.val_split_ratio", "0.3", "--data.seed", "7"]
    module = parser.instantiate_classes(parser.parse_args([*visa, *arguments])).data
    assert isinstance(module, Sample)
    assert (module.root, module.category) == (Path("datasets/anomalib_spd_sample"), CATEGORIES[0])
    assert (module.val_split_ratio, module.seed) == (0.3, 7)
