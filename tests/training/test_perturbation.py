"""Any transform perturbs images in a training: from Python, and from YAML without a line of code."""

from pathlib import Path
from typing import Any

import pytest
import torch
from kornia.augmentation import RandomErasing
from torch import Tensor, nn

from anomalib_spd.augmentation import RandomCutSwap
from anomalib_spd.cli.main import main
from anomalib_spd.local import DenseSPD
from anomalib_spd.training.perturbation import Perturbation
from tests.cli.test_main import _small, recipe
from tests.finetuning.small import MEMORY, RECIPE, finetune

ERASING = "[{class_path: kornia.augmentation.RandomErasing, init_args: {scale: [0.02, 0.1], p: 1.0}}]"
CRACK = "[{class_path: anomalib_spd.augmentation.RandomCrack}, {class_path: kornia.augmentation.RandomErasing}]"


def pretrain(images: Path, folder: Path, method: str, *more: str) -> int:
    return main(["pretrain", *recipe(f"{method}_spd"), *_small(images, folder, *more, method=method), "--debug"])


@pytest.mark.parametrize("method", ["supervised", "dense", "cross_image"])
@pytest.mark.parametrize("transforms", [ERASING, CRACK])
def test_pre_training_takes_transforms_from_yaml(
    method: str, transforms: str, labelled_images: Path, tmp_path: Path
) -> None:
    more = (f"--model.init_args.local_augmentations={transforms}", "--trainer.fast_dev_run", "true")
    assert pretrain(labelled_images, tmp_path, method, *more) == 0


@pytest.mark.parametrize("file", [MEMORY, RECIPE])
def test_fine_tuning_takes_transforms_from_yaml(file: Path, root: Path, home: Path, tmp_path: Path) -> None:
    more = (f"--model.init_args.local_augmentations={CRACK}", "--trainer.fast_dev_run", "true")
    assert finetune(root, tmp_path, "x", *more, recipe=file) == 0


def test_what_is_no_transform_is_refused_from_yaml(
    root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "--model.init_args.local_augmentations=[{class_path: pathlib.Path}]"
    with pytest.raises(SystemExit, match="2"):
        finetune(root, tmp_path, "x", more, recipe=MEMORY)
    assert "pathlib.Path" in capsys.readouterr().err


def test_a_run_resumes_with_the_same_transforms_alone(labelled_images: Path, tmp_path: Path) -> None:
    given = f"--model.init_args.local_augmentations={ERASING}"
    assert pretrain(labelled_images, tmp_path, "dense", given, "--trainer.max_epochs", "1") == 0
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    settings = torch.load(checkpoint, weights_only=True)["hyper_parameters"]["local_augmentations"]
    assert settings[0]["class_path"] == "kornia.augmentation.RandomErasing"
    with pytest.raises(ValueError, match=r"other settings \(local_augmentations: .*RandomErasing.* then, None now"):
        pretrain(labelled_images, tmp_path, "dense", "--trainer.max_epochs", "1")
    assert pretrain(labelled_images, tmp_path, "dense", given, "--trainer.max_epochs", "1") == 0
    again = DenseSPD.load_from_checkpoint(checkpoint)
    (transform,) = again.perturbation.transforms
    assert isinstance(transform, RandomErasing)
    assert transform.p == 1


def test_transforms_given_in_python_are_saved_as_text() -> None:
    layers: Any = {"layers": ("blocks.1", "blocks.2"), "frozen": ("conv_stem",)}
    transforms = [RandomErasing(p=1.0), RandomCutSwap()]
    model = DenseSPD(backbone="test_efficientnet", pretrained=False, local_augmentations=transforms, **layers)
    for settings in (model.hparams, model.hparams_initial):
        erasing, swap = settings["local_augmentations"]
        assert erasing.startswith("RandomErasing(")
        assert swap.startswith("RandomCutSwap(")


class Guided(nn.Module):
    def forward(self, images: Tensor, saliency: Tensor) -> Tensor:
        return images + saliency[:, None]


def test_saliency_is_given_to_what_takes_it() -> None:
    images, maps = torch.zeros(2, 3, 4, 4), torch.ones(2, 4, 4)
    assert torch.equal(Perturbation([Guided()], 3)(images, maps), images + 3)
    plain = Perturbation([nn.Identity()])
    assert torch.equal(plain(images, maps), images)
    assert not plain.takes_saliency
    assert Perturbation([nn.Identity(), RandomCutSwap()]).takes_saliency
