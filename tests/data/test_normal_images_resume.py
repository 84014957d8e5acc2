"""Normal images of several data modules, small sets, and checkpoints of other images."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anomalib.data import AnomalibDataModule, Visa
from PIL import Image
from torchvision.transforms import v2

from anomalib_spd.data import DefectFolder, ImageFolder, LabelledImages, NormalImages
from tests.data.sets import visa


def ready(
    modules: Any, batch_size: int = 4, world_size: int = 1, shrink_batches: bool = True, by_category: bool = False
) -> NormalImages:
    data = NormalImages(modules, batch_size, 24, 0, shrink_batches=shrink_batches, by_category=by_category)
    data.trainer = SimpleNamespace(
        world_size=world_size,
        global_rank=0,
        num_training_batches=3,
        fit_loop=SimpleNamespace(total_batch_idx=3),
    )
    data.prepare_data()
    data.setup("fit")
    return data


def two(root: Path) -> list[AnomalibDataModule]:
    return [Visa(root, category, num_workers=0) for category in ("one", "two")]


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """The same images, to be changed."""
    return Path(shutil.copytree(root / "visa_pytorch", tmp_path / "visa_pytorch")).parent


def test_several_data_modules_give_the_images_of_all(root: Path) -> None:
    data = ready(two(root))
    assert data.title == "Visa one, Visa two"
    assert data.images is not None
    names = ["/".join(path.parts[-4:]) for path in data.images.files]
    assert names == [f"{each}/train/good/{number:03d}.JPG" for each in ("one", "two") for number in range(6)]
    assert [images.shape for images, _ in data.train_dataloader()] == [(4, 3, 24, 24)] * 3


def test_a_set_without_masks_is_an_error_that_says_what_reads_it(own: Path) -> None:
    shutil.rmtree(own / "visa_pytorch/one/ground_truth")
    with pytest.raises(
        ValueError, match=r"Visa cannot list its images: .* no masks, anomalib\.data\.Folder reads them"
    ):
        ready(visa(own))
    with pytest.raises(ValueError, match=r"Visa cannot list its images: .* anomalib\.data\.Folder reads them"):
        DefectFolder(datamodule=visa(own), defect_share=0.5).setup("fit")


def test_a_batch_has_one_category_and_each_comes_equally_often(own: Path) -> None:
    for number in range(4):  # two of one, six of the other
        (own / f"visa_pytorch/two/train/good/{number:03d}.JPG").unlink()
    data = ready(two(own), batch_size=2, by_category=True)
    loader = data.train_dataloader()
    drawn = list[list[int]]()
    for epoch in range(100):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        drawn += [labels.tolist() for _, labels in loader]
    assert {tuple(each) for each in drawn} == {(0, 0), (1, 1)}
    assert len(drawn) == 100 * (8 // 2)
    assert 0.4 < sum(map(sum, drawn)) / len(drawn) / 2 < 0.6
    # a run that is resumed after the first of four batches
    data.trainer.num_training_batches, data.trainer.fit_loop.total_batch_idx = 4, 0
    again = ready(two(own), batch_size=2, by_category=True)
    again.load_state_dict(data.state_dict())
    whole, rest = ([images for images, _ in each.train_dataloader()] for each in (data, again))
    assert (len(whole), len(rest)) == (4, 3)
    assert all(torch.equal(*pair) for pair in zip(whole[1:], rest, strict=True))
    with pytest.raises(ValueError, match=r"other settings \(by_category: True then, False now\)"):
        ready(two(own), batch_size=2).load_state_dict(data.state_dict())


def test_the_smallest_category_limits_a_batch_of_one(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        (own / f"visa_pytorch/two/train/good/{number:03d}.JPG").unlink()
    data = ready(two(own), batch_size=4, by_category=True)
    assert data.batch_size == 3
    assert "holds 9 images, and 3 of one category: the batch size is 3" in caplog.text
    assert {len(images) for images, _ in data.train_dataloader()} == {3}
    with pytest.raises(ValueError, match="holds 9 images, and 3 of one category; give a batch_size of 3 or less"):
        ready(two(own), batch_size=4, by_category=True, shrink_batches=False)


def test_the_guard_of_test_images_holds_in_each_of_them(own: Path) -> None:
    base = own / "visa_pytorch" / "two"
    (base / "train/good/777.JPG").symlink_to(base / "test/bad/000.JPG")
    with pytest.raises(ValueError, match=r"1 normal training images of Visa are test or validation images.*777"):
        ready(two(own))
    # test images of one category may not be trained on as the other's
    (base / "train/good/777.JPG").unlink()
    ready(two(own))


@pytest.mark.parametrize(("batch_size", "world_size", "made"), [(4, 1, 4), (6, 1, 6), (32, 1, 6), (4, 2, 3), (1, 6, 1)])
def test_batches_are_smaller_where_there_are_few_images(
    root: Path, caplog: pytest.LogCaptureFixture, batch_size: int, world_size: int, made: int
) -> None:
    data = ready(visa(root), batch_size, world_size=world_size)
    assert data.batch_size == made
    assert [len(images) for images, _ in data.train_dataloader()] == [made] * (6 // made // world_size)
    warned = [line for line in caplog.messages if "holds 6 images: the batch size is" in line]
    assert len(warned) == (made != batch_size)


def test_one_image_is_a_batch(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in sorted((own / "visa_pytorch/one/train/good").iterdir())[1:]:
        path.unlink()
    data = ready(visa(own), 32)
    assert [images.shape for images, _ in data.train_dataloader()] == [(1, 3, 24, 24)]
    assert "holds 1 images: the batch size is 1" in caplog.text


def test_every_device_needs_an_image(root: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 6 images, fewer than 7 devices. Give fewer devices"):
        ready(visa(root), world_size=7)


@pytest.mark.parametrize("change", ["other", "fewer", "more", "content", "order of categories"])
def test_a_run_on_other_images_is_not_resumed(root: Path, own: Path, change: str) -> None:
    state = ready(two(root)).state_dict()
    modules, folder_of_one = two(own), own / "visa_pytorch/one/train/good"
    if change == "other":
        modules = [modules[1]]
    elif change == "fewer":
        (folder_of_one / "000.JPG").unlink()
    elif change == "more":
        shutil.copy(folder_of_one / "000.JPG", folder_of_one / "006.JPG")
    elif change == "content":
        Image.new("RGB", (64, 64)).save(folder_of_one / "000.JPG")
    else:
        modules = modules[::-1]
    with pytest.raises(ValueError, match=r"belongs to a run with other settings \(other images\)\. .*--name"):
        ready(modules).load_state_dict(state)


def test_the_same_images_in_another_folder_are_resumed(root: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = ready(two(root)).state_dict()
    assert (state["seen"], state["batches"]) == (4, 3)
    monkeypatch.chdir(own.parent)
    for folder in (own, Path(own.name)):
        data = ready(two(folder))
        data.load_state_dict(state)
        # one batch of the second epoch is behind it
        whole = ready(two(folder))
        whole.load_state_dict({**state, "seen": 3})
        rest = [images for images, _ in whole.train_dataloader()][1:]
        assert len(rest) == 2
        assert all(torch.equal(*pair) for pair in zip(rest, (each for each, _ in data.train_dataloader()), strict=True))


def test_images_of_the_same_names_and_sizes_differ_by_category(own: Path) -> None:
    for path in own.rglob("*.JPG"):
        path.write_bytes(path.read_bytes().ljust(20_000, b"\0"))
    one, other = two(own)
    with pytest.raises(ValueError, match="other images"):
        ready(other).load_state_dict(ready(one).state_dict())


def test_both_sides_are_resized_without_keep_aspect(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (3, 60, 90), dtype=torch.uint8)
    (tmp_path / "train").mkdir()
    v2.functional.to_pil_image(pixels).save(tmp_path / "train/a.png")
    whole = v2.functional.resize(pixels, [30, 30], antialias=True)
    middle = v2.functional.resize(pixels, [30, 45], antialias=True)[..., 7:37]
    images = LabelledImages(tmp_path / "train", 30, keep_aspect=False)
    assert torch.equal(images[0][0], whole)
    cut = LabelledImages(tmp_path / "train", 30)[0][0]
    assert (cut.shape, cut.dtype) == ((3, 30, 30), torch.uint8)
    assert min((cut.int() - middle.int()).abs().max(), (cut.int() - _shifted(pixels).int()).abs().max()) == 0


def _shifted(pixels: torch.Tensor) -> torch.Tensor:
    # an odd rest may be cut off on either side
    return v2.functional.resize(pixels, [30, 45], antialias=True)[..., 8:38]


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_data_modules_pass_keep_aspect(own: Path, keep_aspect: bool) -> None:
    for path in (own / "visa_pytorch/one/train/good").iterdir():
        with Image.open(path) as image:
            image.crop((0, 0, 64, 40)).save(path)
    data = NormalImages(visa(own), 6, 32, 0) if keep_aspect else NormalImages(visa(own), 6, 32, 0, keep_aspect=False)
    data.prepare_data()
    data.setup("fit")
    assert data.images is not None
    expected = {
        LabelledImages(data.images.files, 32, keep_aspect=keep_aspect)[index][0].sum().item() for index in range(6)
    }
    (batch,) = data.train_dataloader()
    assert {image.sum().item() for image in batch[0]} == expected
    assert ImageFolder(own).keep_aspect
    other = LabelledImages(data.images.files, 32, keep_aspect=not keep_aspect)[0][0].sum().item()
    assert other not in expected
