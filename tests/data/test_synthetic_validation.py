"""A validation set of drawn defects: which images, where the defects lie, exact masks, and the same whatever draws before."""

import re
from pathlib import Path
from typing import Any

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataModule, Folder
from anomalib.data.utils import read_image
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from anomalib_spd.augmentation import RandomCrack, RandomCutPaste, RandomCutSwap
from anomalib_spd.data import SyntheticValidation
from anomalib_spd.data.drawn_defects import ON_PART, DefectMixture
from anomalib_spd.data.ready import fingerprint, set_up
from tests.data.sets import folder, names, visa

WHOLE_SPLITS = {"val_split_mode": "none"}


def ready(datamodule: AnomalibDataModule, **arguments: Any) -> SyntheticValidation:
    data = SyntheticValidation(datamodule, **arguments)
    set_up(data, 0)
    return data


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty gray disks on white."""
    root = tmp_path_factory.mktemp("disks")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96]
    disk = (rows - 48) ** 2 + (columns - 48) ** 2 < 30**2
    for part, count in (("train/good", 20), ("test/good", 3), ("test/bad", 3)):
        (root / part).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((96, 96, 3), 250, np.uint8)
            pixels[disk] = rng.integers(60, 140, (int(disk.sum()), 3))
            Image.fromarray(pixels).save(root / part / f"{number:03d}.png")
    return root


def disks(parts: Path, **arguments: Any) -> Folder:
    return folder(parts, **{"mask_dir": None, **WHOLE_SPLITS, **arguments})


@pytest.mark.parametrize(
    ("fraction", "holdout", "sizes"), [(0.5, 0.3, (14, 3, 3)), (0.2, 0.5, (10, 8, 2)), (0.99, 0.1, (18, 1, 1))]
)
def test_good_images_are_divided_and_some_have_a_defect(
    parts: Path, fraction: float, holdout: float, sizes: tuple[int, ...]
) -> None:
    data = ready(disks(parts), fraction=fraction, holdout=holdout)
    assert (len(data.train_data), len(names(data.val_data, 0)), len(names(data.val_data, 1))) == sizes
    assert not set(names(data.train_data)) & set(names(data.val_data))
    assert all(name.startswith("train/good/") for name in names(data.train_data) + names(data.val_data))


def test_the_test_set_is_the_wrapped_modules(root: Path) -> None:
    wrapped = visa(root, **WHOLE_SPLITS)
    data = ready(visa(root, **WHOLE_SPLITS))
    set_up(wrapped, 0)
    assert names(data.test_data) == names(wrapped.test_data)
    assert (data.name, data.category) == (wrapped.name, wrapped.category)


def test_a_link_to_a_test_image_is_an_error(own: Path) -> None:
    (own / "train/good/777.JPG").symlink_to(own / "test/good/000.JPG")
    with pytest.raises(ValueError, match=r"1 normal training images of mine are test .*777\.JPG"):
        ready(folder(own, **WHOLE_SPLITS))


@pytest.mark.parametrize("saliency", ["foreground", "small_a", None])
def test_masks_are_exact_and_images_those_of_files(parts: Path, saliency: str | None, home: Path) -> None:
    data = ready(disks(parts), saliency=saliency).val_data
    for index in range(len(data)):
        item, before = data[index], read_image(data.samples.image_path[index], as_tensor=True)
        assert item.gt_mask is not None
        assert (item.image * 255 - (item.image * 255).round()).abs().max() < 1e-4
        difference = (item.image - before).abs().amax(0)
        if data.samples.label_index[index]:
            assert item.gt_mask.any()
            assert difference[item.gt_mask > 0].min() > 0.02
        else:
            assert not item.gt_mask.any()
            assert not difference.any()


@settings(deadline=None, max_examples=15, database=None)
@given(seed=st.integers(0, 2**40), order=st.permutations(range(4)))
def test_a_defect_depends_on_seed_and_name_alone(seed: int, order: list[int]) -> None:
    images = torch.rand(4, 3, 48, 40, generator=torch.Generator().manual_seed(1))
    first, again = (DefectMixture(seed=seed, saliency=None) for _ in range(2))
    straight = [first(image, str(number)) for number, image in enumerate(images)]
    for number in order:
        torch.rand(1)
        state = torch.get_rng_state()
        drawn = again(images[number], str(number))
        assert drawn.image.equal(straight[number].image)
        assert drawn.mask.equal(straight[number].mask)
        assert torch.get_rng_state().equal(state)
    assert not first(images[0], "0").image.equal(first(images[0], "another").image)


def test_workers_and_the_folder_do_not_matter(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").symlink_to(parts, target_is_directory=True)
    batches = []
    for place, workers in ((parts, 0), (tmp_path / "moved", 2)):
        data = ready(disks(place, eval_batch_size=4))
        data.num_workers = workers
        batches.append(list(data.val_dataloader()))
        # what workers rejected is counted here
        assert data.val_data.rejected > 0
    for one, other in zip(*batches, strict=True):
        assert one.image.equal(other.image)
        assert one.gt_mask.equal(other.gt_mask)


def test_defects_lie_on_the_part_and_others_are_counted(parts: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ready(disks(parts))
    shares = []
    for index in np.flatnonzero(data.val_data.samples.label_index):
        drawn = data.val_data.draw(int(index))
        rows, columns = np.nonzero(drawn.mask.numpy())
        shares.append(float(((rows - 48) ** 2 + (columns - 48) ** 2 < 34**2).mean()))
    assert min(shares) >= ON_PART
    before = data.val_data.rejected
    assert before > 0
    data.val_data.draw(int(np.flatnonzero(data.val_data.samples.label_index)[0]))
    assert data.val_data.rejected == before  # an image that is read again counts once
    with caplog.at_level("INFO", "anomalib_spd"):
        data.teardown("fit")
    assert f"{before} drawn defects lay on the background" in caplog.text
    anywhere = ready(disks(parts), saliency=None)
    assert (
        sum(
            anywhere.val_data.draw(int(each)).rejected for each in np.flatnonzero(anywhere.val_data.samples.label_index)
        )
        == 0
    )


def test_weights_say_how_often(parts: Path) -> None:
    image = torch.rand(3, 64, 64)
    mixture = DefectMixture([RandomCrack(), RandomCutPaste()], [99, 1], saliency=None)
    drawn = [mixture(image, str(number)).defect for number in range(30)]
    assert drawn.count("RandomCrack") > 25


@pytest.mark.parametrize(
    "defect",
    [RandomCutSwap(clusters=1), PerlinAnomalyGenerator(probability=1.0, blend_factor=0.5)],
    ids=lambda each: type(each).__name__,
)
def test_other_transforms_that_return_masks(defect: nn.Module, parts: Path) -> None:
    data = ready(disks(parts), defects=[defect], saliency=None)
    index = int(np.flatnonzero(data.val_data.samples.label_index)[0])
    assert data.val_data.draw(index).mask.any()


def test_grids_see_what_is_drawn(parts: Path) -> None:
    prints = {
        fingerprint(ready(disks(parts), **arguments))
        for arguments in (
            {},
            {"seed": 1},
            {"defects": [RandomCrack()]},
            {"defects": [RandomCrack(width=(0.01, 0.02))]},
            {"saliency": None},
        )
    }
    assert len(prints) == 5
    assert fingerprint(ready(disks(parts))) in prints


def test_the_images_below_the_defects_are_good_ones(parts: Path) -> None:
    data = ready(disks(parts)).val_data
    good = data.without_defects()
    assert names(good) == names(data, 1)
    assert not good.samples.label_index.any()
    assert good[0].image.equal(read_image(good.samples.image_path[0], as_tensor=True))
    assert len(names(data, 1)) == 3  # unchanged


class NoMask(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 0.0}, "`fraction` is a share above 0 and below 1"),
        ({"fraction": 1.0}, "`fraction` is a share above 0 and below 1"),
        ({"holdout": 0.0}, "`holdout` is a share above 0 and below 1"),
        ({"defects": []}, "one transform or more"),
        ({"defects": ["RandomCrack"]}, "`defects` are transforms"),
        ({"defects": [RandomCrack()], "weights": [1, 2]}, "a positive number for each of 1 defects"),
        ({"defects": [RandomCrack()], "weights": [0]}, "a positive number for each of 1 defects"),
        (
            {"defects": [K.RandomGaussianBlur((3, 3), (1, 2), p=1.0)]},
            "RandomGaussianBlur returns no mask .*the mask is empty",
        ),
        ({"defects": [NoMask()]}, "NoMask returns no mask"),
    ],
)
def test_bad_arguments_are_one_line(parts: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        SyntheticValidation(disks(parts), **arguments)
    assert "\n" not in str(caught.value)


def test_too_few_or_too_small_images_are_an_error_before_the_work(tmp_path: Path, parts: Path) -> None:
    for part in ("train/good", "test/good", "test/bad"):
        (tmp_path / part).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (20, 40), (number, 9, 9)).save(tmp_path / part / f"{number}.png")
    with pytest.raises(ValueError, match=r"mine has 3 normal training images, too few to hold some out .*4 or more"):
        ready(disks(tmp_path))
    Image.new("RGB", (20, 40)).save(tmp_path / "train/good/3.png")
    with pytest.raises(
        ValueError, match=r"2 images are smaller than 32 pixels, too small to draw a defect on: .*\.png"
    ):
        ready(disks(tmp_path))


def test_an_image_on_which_nothing_shows_is_named() -> None:
    invisible = RandomCutPaste(jitter=(0.0, 0.0, 0.0, 0.0))
    with pytest.raises(
        ValueError, match=re.escape("flat.png: none of 50 defects shows on this image of 64 x 64 pixels")
    ):
        DefectMixture([invisible])(torch.full((3, 64, 64), 0.5), "flat.png")
