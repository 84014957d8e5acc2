"""Kornia's augmentations as torchvision's: inputs, masks, seeds, and their place in stock anomalib."""

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from anomalib.cli.cli import AnomalibCLI
from anomalib.data import Visa
from kornia.augmentation import (
    AugmentationSequential,
    ColorJitter,
    IntensityAugmentationBase2D,
    RandomErasing,
    RandomHorizontalFlip,
)
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from anomalib_spd.augmentation import RandomSmoothBlend
from anomalib_spd.augmentation.torchvision_transform import TorchvisionTransform
from anomalib_spd.data import Sample


def _smooth_blend(**arguments: Any) -> TorchvisionTransform:
    return TorchvisionTransform(RandomSmoothBlend(sigma=2, sigma_size=None, **arguments))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 40, 30), (1, 40, 30), (5, 3, 40, 30)])
def test_images_keep_shape_dtype_and_type(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    plain = (torch.rand(shape) * 255).to(dtype) if dtype == torch.uint8 else torch.rand(shape).to(dtype)
    for image in (plain, tv_tensors.Image(plain)):
        torch.manual_seed(0)
        out = _smooth_blend()(image)
        assert type(out) is type(image)
        assert (out.shape, out.dtype) == (image.shape, image.dtype)
        assert torch.equal(image, plain)  # the input is left alone
        assert not torch.equal(out, plain)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize(
    ("image_shape", "mask_shape"),
    [
        ((3, 40, 30), (40, 30)),
        ((3, 40, 30), (1, 40, 30)),
        ((3, 40, 30), (2, 40, 30)),
        ((4, 3, 40, 30), (4, 40, 30)),
        ((4, 3, 40, 30), (4, 1, 40, 30)),
    ],
)
def test_masks_are_united_with_what_changed(
    image_shape: tuple[int, ...], mask_shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.rand(image_shape, dtype=torch.float64))
    given = torch.zeros(mask_shape, dtype=dtype)
    given[..., :3, :3] = 1
    out, mask = _smooth_blend()(image, tv_tensors.Mask(given))
    assert type(mask) is tv_tensors.Mask
    assert (mask.shape, mask.dtype) == (given.shape, given.dtype)
    # on noise, every pixel within reach of the blur takes another value
    changed = (out != image).any(-3)
    assert changed.any()
    changed = changed.expand(mask_shape) if len(image_shape) == 3 else changed.reshape(mask_shape)
    assert torch.equal(mask > 0, changed | (given > 0))
    assert mask.max() == 1


def test_the_mask_is_what_kornia_makes_of_it() -> None:
    image, mask = torch.rand(4, 3, 40, 30), torch.randint(0, 2, (4, 1, 40, 30)).float()
    for augmentation in (RandomSmoothBlend(p=0.5), RandomErasing(p=0.5), ColorJitter(0.5, p=0.5)):
        torch.manual_seed(3)
        out, out_mask = TorchvisionTransform(augmentation)(tv_tensors.Image(image), tv_tensors.Mask(mask))
        torch.manual_seed(3)
        expected = AugmentationSequential(augmentation, data_keys=["input", "mask"])(image, mask)
        assert torch.equal(out, expected[0])
        assert torch.equal(out_mask, expected[1])


def test_bytes_are_scaled_and_rounded() -> None:
    image = torch.arange(256, dtype=torch.uint8).repeat(3, 40, 1)
    for seed in range(20):
        torch.manual_seed(seed)
        out, mask = _smooth_blend()(tv_tensors.Image(image), tv_tensors.Mask(torch.zeros(40, 256)))
        torch.manual_seed(seed)
        expected = _smooth_blend()(image / 255) * 255
        assert (out - expected).abs().max() <= 0.5 + 1e-4
        unchanged = mask == 0
        assert torch.equal(out[:, unchanged], image[:, unchanged])
    assert torch.equal(_smooth_blend(p=0.0)(image), image)


def test_values_beyond_white_stay_white() -> None:
    brighter = TorchvisionTransform(_Brighter(p=1.0))
    assert (brighter(torch.full((3, 8, 8), 200, dtype=torch.uint8)) == 255).all()


class _Brighter(IntensityAugmentationBase2D):
    def apply_transform(self, input: Tensor, *_: Any, **__: Any) -> Tensor:
        return input * 2


def test_nested_samples() -> None:
    image, mask = tv_tensors.Image(torch.rand(3, 40, 30)), tv_tensors.Mask(torch.zeros(40, 30, dtype=torch.bool))
    boxes = tv_tensors.BoundingBoxes(torch.tensor([[1, 2, 10, 12]]), format="XYXY", canvas_size=(40, 30))
    label = torch.tensor(1)
    sample = {"views": [image, image], "truth": (mask, label), "boxes": boxes, "path": "a.png", "nothing": None}
    out = _smooth_blend()(sample)
    assert set(out) == set(sample)
    first, second = out["views"]
    assert torch.equal(first, second)
    assert not torch.equal(first, image)
    assert isinstance(out["truth"], tuple)
    assert out["truth"][0].any()
    assert out["truth"][1] is label
    assert out["boxes"] is boxes
    assert (out["path"], out["nothing"]) == ("a.png", None)


def test_p_is_the_augmentations() -> None:
    torch.manual_seed(0)
    images = torch.rand(400, 3, 32, 32)
    transform = _smooth_blend(p=0.3)
    alone = sum(not torch.equal(transform(image), image) for image in images)
    together = (transform(images) != images).flatten(1).any(1).sum()
    assert 90 <= alone <= 150
    assert 90 <= together <= 150


@pytest.mark.parametrize(
    "augmentation", [RandomHorizontalFlip(), v2.ColorJitter(), AugmentationSequential(ColorJitter()), RandomSmoothBlend]
)
def test_other_augmentations_are_refused(augmentation: Any) -> None:
    with pytest.raises(TypeError, match=r"Kornia's 2-D intensity augmentations.*v2.Compose\. Got"):
        TorchvisionTransform(augmentation)


@pytest.mark.parametrize(
    ("sample", "error", "message"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.int32), TypeError, r"uint8; v2.ToDtype.*Got torch.int32"),
        (torch.zeros(3, 8, 8, dtype=torch.bool), TypeError, r"uint8; v2.ToDtype.*Got torch.bool"),
        (Image.new("RGB", (8, 8)), TypeError, r"v2.ToImage\(\).*Got Image"),
        (tv_tensors.Video(torch.rand(2, 3, 8, 8)), TypeError, "as tensors.*Got Video"),
        (tv_tensors.Mask(torch.zeros(8, 8)), ValueError, "with an image"),
        ("a path", ValueError, "with an image"),
        (torch.rand(8, 8), ValueError, r"\(C, H, W\) or \(B, C, H, W\).*\(8, 8\)"),
        ([tv_tensors.Image(torch.rand(3, 8, 8)), tv_tensors.Image(torch.rand(3, 8, 9))], ValueError, r"\(3, 8, 9\)"),
        ([torch.rand(3, 8, 8), tv_tensors.Mask(torch.zeros(4, 4))], ValueError, r"masks \[\(4, 4\)\]"),
        ([torch.rand(2, 3, 8, 8), tv_tensors.Mask(torch.zeros(3, 8, 8))], ValueError, r"masks \[\(3, 8, 8\)\]"),
        ([torch.rand(2, 3, 8, 8), tv_tensors.Mask(torch.zeros(8, 8))], ValueError, r"masks \[\(8, 8\)\]"),
    ],
)
def test_samples_that_cannot_be_augmented_are_refused(sample: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _smooth_blend()(sample)


def test_torchs_generator_alone_decides() -> None:
    image, transform = torch.rand(3, 40, 30), _smooth_blend(p=0.9)
    results, others = [], []
    for seed in (1, 1, 2):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - the global state is what must be left alone
        torch.manual_seed(seed)
        results.append(transform(image))
        others.append((random.random(), np.random.random()))  # noqa: NPY002
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    assert others == [(random.random(), np.random.random())] * 3  # noqa: NPY002


class _OneImage(Dataset[Tensor]):
    """The same image eight times, augmented."""

    def __init__(self) -> None:
        self.image = torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(0))
        self.transform = _smooth_blend()

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        out: Tensor = self.transform(self.image)
        return out


def _epoch(workers: int, seed: int) -> list[Tensor]:
    # without workers, a data loader's generator does not reach what a data set draws
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    return list(DataLoader(_OneImage(), batch_size=2, num_workers=workers, generator=generator))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_seed_repeats_an_epoch(workers: int) -> None:
    first, again, other = _epoch(workers, 1), _epoch(workers, 1), _epoch(workers, 2)
    for one, two, three in zip(first, again, other, strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
    # batches alternate between workers: no draw of one is another's
    images = torch.cat(first)
    assert len(images.unique(dim=0)) == 8


def test_pickles() -> None:
    transform = pickle.loads(pickle.dumps(_smooth_blend()))
    assert "RandomSmoothBlend" in repr(transform)
    assert transform(torch.rand(3, 40, 30)).shape == (3, 40, 30)


@pytest.fixture(scope="module")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    Sample("gravel", folder).prepare_data()
    return folder


def _training_data(datamodule: Visa) -> tuple[Tensor, Tensor, Tensor]:
    """Images, masks and labels as the loader gives them, but in the order of their files: it shuffles."""
    batches = list(datamodule.train_dataloader())
    paths = [path for batch in batches for path in batch.image_path]
    order = sorted(range(len(paths)), key=paths.__getitem__)
    image, mask, label = (torch.cat([batch[key] for batch in batches]) for key in ("image", "gt_mask", "gt_label"))
    return image[order], mask[order], label[order]


def _plain_data(folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    datamodule = Visa(root=folder, category="gravel", num_workers=0)
    datamodule.setup()
    return _training_data(datamodule)


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_data_module_of_stock_anomalib(sample_folder: Path, workers: int) -> None:
    transform = TorchvisionTransform(RandomSmoothBlend(p=0.5))
    datamodule = Visa(sample_folder, "gravel", train_augmentations=transform, num_workers=workers)
    datamodule.setup()
    torch.manual_seed(0)
    image, mask, label = _training_data(datamodule)
    plain, _, _ = _plain_data(sample_folder)
    changed = (image != plain).any(1)
    assert 4 <= changed.flatten(1).any(1).sum() <= 20  # of 24, half
    assert not (changed & (mask == 0)).any()
    assert torch.equal(changed.flatten(1).any(1), mask.flatten(1).any(1))
    assert not label.any()
    # the other subsets are left alone
    assert datamodule.test_data.augmentations is None


def test_in_a_file_of_stock_anomalib(sample_folder: Path, tmp_path: Path) -> None:
    config = {
        "model": {
            "class_path": "anomalib.models.Padim",
            "init_args": {"backbone": "resnet18", "layers": ["layer1"], "n_features": 8, "pre_trained": False},
        },
        "data": {
            "class_path": "anomalib.data.Visa",
            "init_args": {
                "root": str(sample_folder),
                "category": "gravel",
                "num_workers": 0,
                "train_augmentations": {
                    "class_path": "torchvision.transforms.v2.Compose",
                    "init_args": {
                        "transforms": [
                            {"class_path": "torchvision.transforms.v2.RandomVerticalFlip", "init_args": {"p": 1.0}},
                            {
                                "class_path": "anomalib_spd.augmentation.TorchvisionTransform",
                                "init_args": {
                                    "augmentation": {
                                        "class_path": "anomalib_spd.augmentation.RandomSmoothBlend",
                                        "init_args": {"p": 0.5, "scale": [0.01, 0.02]},
                                    }
                                },
                            },
                        ]
                    },
                },
            },
        },
        "trainer": {"accelerator": "cpu", "devices": 1, "logger": False},
        "default_root_dir": str(tmp_path / "results"),
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    cli = AnomalibCLI(["fit", "--config", str(file)])
    assert list((tmp_path / "results").rglob("*.ckpt"))
    image, mask, _ = _training_data(cli.datamodule)
    plain, _, _ = _plain_data(sample_folder)
    changed = (image != plain.flip(-2)).any(1)
    assert 4 <= changed.flatten(1).any(1).sum() <= 20
    assert not (changed & (mask == 0)).any()
