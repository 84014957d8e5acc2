"""What goes wrong in a fine-tuning is told in a line, and what can go on goes on."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from PIL import Image

from anomalib_spd.backbones import find
from tests.finetuning.small import MEMORY, checkpoint, failing, finetune, weights


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """The same images, to be spoilt."""
    return Path(shutil.copytree(root / "visa_pytorch/one", tmp_path / "images/visa_pytorch/one")).parents[1]


def spoil(own: Path, how: str) -> None:
    good = own / "visa_pytorch/one/train/good"
    images = sorted(good.iterdir())
    if how == "damaged":
        images[2].write_bytes(images[2].read_bytes()[:300])
    elif how == "empty":
        for path in images:
            path.unlink()
    else:
        (good / "777.JPG").symlink_to(own / "visa_pytorch/one/test/good/000.JPG")


@pytest.mark.parametrize(
    ("how", "more", "message"),
    [
        ("damaged", (), "1 of 6 files cannot be read as images, which is more than 1%"),
        ("damaged", ("--num_workers", "1"), "1 of 6 files cannot be read as images, which is more than 1%"),
        ("empty", (), "no normal training image"),
        ("linked", (), "1 normal training images of Visa are test or validation images too"),
    ],
)
def test_images_that_cannot_be_trained_on(
    own: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, more: Any, message: str
) -> None:
    spoil(own, how)
    assert message in failing(capsys, own, tmp_path / "runs", "x", *more)
    assert not (home / "x").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--model.init_args.backbone", "nonsense"), "error: Unknown architecture 'nonsense'"),
        (("--model.init_args.classifier", "nonsense"), "error: Unknown model (nonsense)"),
        (("--model.init_args.layers", "[nonsense]"), "EfficientNet has no layer 'nonsense'"),
        (("--model.init_args.operation", "cut"), "'cut'"),
    ],
)
def test_what_there_is_not(
    root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: Any, message: str
) -> None:
    if more[-1] == "cut":
        with pytest.raises(SystemExit, match="2"):
            finetune(root, tmp_path / "runs", "x", *more)
        assert message in capsys.readouterr().err
    else:
        assert message in failing(capsys, root, tmp_path / "runs", "x", *more)
    assert not (tmp_path / "runs").exists()


def test_images_of_one_colour_are_trained_on(own: Path, home: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted((own / "visa_pytorch/one/train/good").iterdir())):
        Image.new("RGB", (64, 64), (40 * number, 90, 30)).save(path)
    assert finetune(own, tmp_path / "runs", "flat", "--model.init_args.all_levels", "true") == 0
    assert all(each.isfinite().all() for each in weights(tmp_path / "runs", "flat").values())


def test_a_single_image_is_trained_on(own: Path, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in sorted((own / "visa_pytorch/one/train/good").iterdir())[1:]:
        path.unlink()
    assert finetune(own, tmp_path / "runs", "single", "--trainer.max_steps", "3") == 0
    assert "The normal training set of Visa holds 1 images: the batch size is 1" in caplog.text
    assert find("single").provenance.data.startswith("1 normal training images of")
    assert checkpoint(tmp_path / "runs", "single")["epoch"] >= 2


def test_a_memory_is_of_other_images_so_one_is_not_enough(
    own: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((own / "visa_pytorch/one/train/good").iterdir())[1:]:
        path.unlink()
    line = failing(capsys, own, tmp_path / "runs", "alone", recipe=MEMORY)
    assert line.startswith("error: Images are compared with other images of their batch. Got batches of 1: ")
    assert "give more images or a larger --batch_size" in line
    assert "finetune/cutswap" in line
    assert not (home / "alone").exists()
    assert not list((tmp_path / "runs").rglob("*.ckpt"))


def test_parts_of_another_network_cannot_be_frozen(
    root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = failing(capsys, root, tmp_path / "runs", "x", "--model.init_args.frozen=[layer1]", recipe=MEMORY)
    assert line.startswith("error: EfficientNet has no part 'layer1' to freeze. It has: conv_stem, ")
    assert not (tmp_path / "runs").exists()


class Poisoning(Callback):
    """Makes the logits of one step infinite."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            pl_module.head[-1].register_forward_hook(lambda module, inputs, output: output * float("inf"))


def test_a_loss_that_is_no_number_leaves_the_checkpoint_before(
    root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poison = f'--trainer.callbacks=[{{"class_path": "{__name__}.Poisoning", "init_args": {{"step": 4}}}}]'
    line = failing(capsys, root, tmp_path, "x", poison)
    assert line.startswith("error: The loss is nan (normal: ")
    assert "The last checkpoint, if there is one, is of before" in line
    assert all(each.isfinite().all() for each in weights(tmp_path, "x", 4).values())
    assert not (home / "x").exists()
