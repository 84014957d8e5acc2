"""``anomalib-spd defects make``: the folder that one looks at before one trusts a threshold."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalib_spd.augmentation import RandomCrack
from anomalib_spd.cli.main import main
from anomalib_spd.data import SyntheticValidation
from anomalib_spd.data.ready import set_up
from tests.data.sets import visa


def make(root: Path, output: Path, *others: str) -> int:
    """Draw on six images: two are held out, and one of these gets a defect."""
    data = ["--data", "anomalib.data.Visa", "--data.root", str(root), "--data.category", "one"]
    return main(["defects", "make", *data, "--data.val_split_mode", "none", "--output", str(output), *others])


def test_the_folder_has_what_validation_sees(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "defects"
    assert make(root, output) == 0
    out = capsys.readouterr().out
    assert out.startswith("Drew 1 defects; ")
    assert str(output / "contact_sheet.png") in out
    data = SyntheticValidation(visa(root, val_split_mode="none"))
    set_up(data, 0)
    (item,) = (each for each in (data.val_data[index] for index in range(len(data.val_data))) if each.gt_label)
    name = f"{Path(str(item.image_path)).stem}.png"
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*.*")) == sorted(
        ["contact_sheet.png", f"images/{name}", f"masks/{name}"]
    )
    image, mask = (np.asarray(Image.open(output / part / name)) for part in ("images", "masks"))
    assert np.array_equal(image, (item.image * 255).round().byte().permute(1, 2, 0).numpy())
    assert np.array_equal(mask, 255 * np.asarray(item.gt_mask))
    with Image.open(output / "contact_sheet.png") as picture:
        assert picture.width > 1000
    assert [path.name for path in output.parent.iterdir()] == ["defects"]


def test_a_file_may_say_which_data(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrapped = {"class_path": "anomalib.data.Visa", "init_args": {"root": str(root), "category": "one"}}
    settings = {
        "datamodule": wrapped,
        "holdout": 0.6,
        "defects": [{"class_path": "anomalib_spd.augmentation.RandomCrack"}],
    }
    file = tmp_path / "mine.yaml"
    file.write_text(
        json.dumps({"model": 1, "data": {"class_path": "anomalib_spd.data.SyntheticValidation", "init_args": settings}})
    )
    assert main(["defects", "make", "--config", str(file), "--data.seed", "3", "--output", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("Drew 2 defects; ")


def test_nothing_is_overwritten_or_half_written(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    (output / "photograph.png").write_bytes(b"mine")
    assert make(root, output) == 1
    assert "exists already, and nothing is overwritten" in capsys.readouterr().err
    assert (output / "photograph.png").read_bytes() == b"mine"
    (output / "photograph.png").unlink()
    assert make(root, output) == 0  # an empty folder is no folder of anybody's
    assert (output / "contact_sheet.png").is_file()


class InterruptedCrack(RandomCrack):
    """Ends the process as a user or a system does, once a folder is there."""

    def __init__(self, sent: int, folder: str, **options: Any) -> None:
        super().__init__(**options)
        self.sent, self.folder = sent, Path(folder)

    def forward(self, *args: Any, **options: Any) -> Any:
        if self.folder.exists():
            signal.raise_signal(self.sent)
        return super().forward(*args, **options)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_command_that_was_stopped(
    root: Path, tmp_path: Path, sent: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    folder = tmp_path / "new"
    arguments = {"sent": int(sent), "folder": str(folder)}
    crack = {"class_path": f"{__name__}.InterruptedCrack", "init_args": arguments}
    defects = ["--data.defects", json.dumps([crack])]
    wrapped = {"class_path": "anomalib.data.Visa", "init_args": {"root": str(root), "category": "one"}}
    data = ["--data", "anomalib_spd.data.SyntheticValidation", "--data.datamodule", json.dumps(wrapped)]
    output = ["--output", str(folder / "defects")]
    assert main(["defects", "make", *data, *defects, *output]) == 128 + sent
    assert capsys.readouterr().err.splitlines()[-1] == f"Interrupted ({sent.name})."
    assert not list(folder.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("others", "status", "message"),
    [
        (["--data.categry", "one"], 2, "categry"),
        (["--data.category", "oen"], 1, "oen"),
        (["--data", "anomalib.data.Nothing"], 2, "Nothing"),
        (["--data.root", "nowhere", "--data.category", "candle"], 1, "nowhere"),
    ],
)
def test_wrong_usage_is_one_line(
    root: Path, others: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found: object = make(root, tmp_path / "out", *others)
    except SystemExit as error:
        found = error.code
    err = capsys.readouterr().err
    assert found == status
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.iterdir())
