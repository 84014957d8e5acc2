"""The picture of where backbones see a difference, by the command."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_spd.cli.main import main
from anomalib_spd.data.sample.datamodule import defective_image, normal_image


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with a defect, and three without."""
    folder = tmp_path_factory.mktemp("images")
    for name in ("good", "bad"):
        (folder / name).mkdir()
    for number in range(3):
        Image.fromarray(np.asarray(normal_image("brick", "train", f"{number:03d}"))).save(folder / f"good/{number}.png")
    for number in range(2):
        Image.fromarray(np.asarray(defective_image("brick", "hole", number)[0])).save(folder / f"bad/{number}.png")
    return folder


def _command(images: Path, output: Path, *options: str) -> list[str]:
    names = ["--backbones", "efficientnet_lite0_in1k", "efficientnet_lite0_spd"]
    return ["saliency", str(images / "bad"), "--good", str(images / "good"), *names, "--output", str(output), *options]


@pytest.mark.parametrize(("options", "columns"), [((), 5), (("--layers", "blocks.4", "--image_size", "128"), 3)])
def test_draws_a_column_for_each_layer(images: Path, tmp_path: Path, options: tuple[str, ...], columns: int) -> None:
    output = tmp_path / "new" / "saliency.png"
    output.parent.mkdir()
    assert main(_command(images, output, *options)) == 0
    with Image.open(output) as picture:
        assert picture.width == columns * 240  # 2 inches at 120 dots each
        maps = np.asarray(picture.convert("L"))[60:, 240:]
    assert maps.max() == 255
    assert maps.min() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--output": "saliency.gif"}, "expected a name that ends with .jpg or .png"),
        ({"--good": "missing"}, "does not exist"),
        ({"--backbones": "efficientnet_lite0_sdp"}, "efficientnet_lite0_spd"),
        ({"--layers": "block.2"}, "has no layer 'block.2'"),
        ({"saliency": "missing.png"}, "missing.png cannot be read as an image"),
    ],
)
def test_bad_input_is_an_error_of_one_line(
    images: Path, tmp_path: Path, changes: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = _command(images, tmp_path / "saliency.png", "--layers", "blocks.2")
    for option, value in changes.items():
        command[command.index(option) + 1] = value
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


def test_too_many_images_and_a_file_that_exists_are_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "saliency.png"
    command = _command(images, output)
    assert main([*command[:1], *command[1:2] * 9, *command[2:]]) == 1
    assert "there are 18 images, and a picture shows at most 16" in capsys.readouterr().err
    output.write_text("mine")
    assert main(command) == 1
    assert "exists" in capsys.readouterr().err
    assert output.read_text() == "mine"
