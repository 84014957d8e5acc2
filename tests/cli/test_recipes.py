"""``anomalib-spd recipes``, and recipes by name in every command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from anomalib_spd.cli.main import main
from anomalib_spd.config_files import SHIPPED, recipe_names


def test_the_list_has_every_file_with_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list"]) == 0
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.split() == ["NAME", "COMMAND", "IMAGES", "WHAT", "IT", "IS"]
    assert [row.split()[0] for row in rows] == recipe_names()
    assert len(rows) == len(list(SHIPPED.rglob("*.yaml")))
    commands = dict(row.split()[:2] for row in rows)
    assert commands["patchcore_spd"] == "train"
    assert commands["finetune/adapt"] == "adapt"
    assert set(commands.values()) == {"train", "fit", "finetune", "pretrain", "adapt", "benchmark", "twoclass"}
    assert any("none: the sample" in row for row in rows if row.startswith("benchmark/quick "))


@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_show_and_copy(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (SHIPPED / "benchmark/quick.yaml").read_text()
    assert main(["recipes", "show", f"benchmark/quick{suffix}"]) == 0
    assert capsys.readouterr().out == text
    copy = tmp_path / "mine.yaml"
    assert main(["recipes", "copy", f"benchmark/quick{suffix}", str(copy)]) == 0
    assert copy.read_text() == text
    copy.write_text("mine")
    assert main(["recipes", "copy", "benchmark/quick", str(copy)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert copy.read_text() == "mine"


@pytest.mark.parametrize(
    "args",
    [
        ["recipes", "show", "benchmark/quik"],
        ["benchmark", "--config", "benchmark/quik"],
        ["train", "--config", "patchcor_spd"],
        ["predict", "--config=patchcor_spd.yaml"],
        ["export", "-c", "patchcor_spd"],
    ],
)
def test_a_misspelt_recipe_is_one_line(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main(args)
        err = capsys.readouterr().err
    except SystemExit as error:
        status, err = 1, f"{error.code}\n"
    assert status == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "did you mean 'benchmark/quick'" in err or "did you mean 'patchcore_spd'" in err


@pytest.mark.parametrize("name", ["patchcore_spd", "padim_spd.yaml"])
@pytest.mark.parametrize("command", ["train", "predict", "test", "export"])
def test_stock_commands_take_names_in_any_folder(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([command, "--config", name, "--print_config"])
    assert caught.value.code == 0, capsys.readouterr().err
    assert "backbone: efficientnet_lite0_spd" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_file_as_it_is_written_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patchcore_spd.yaml").write_text("model: {class_path: anomalib.models.Padim}\n")
    for name, found in (
        ("patchcore_spd.yaml", "anomalib.models.Padim"),
        ("patchcore_spd", "anomalib.models.Patchcore"),
    ):
        with pytest.raises(SystemExit):
            main(["train", "--config", name, "--print_config"])
        assert f"class_path: {found}\n" in capsys.readouterr().out


def test_the_list_does_not_import_torch() -> None:
    code = (
        "import sys; sys.argv[0] = 'anomalib-spd'; from anomalib_spd.cli.main import main; main(['recipes', 'list']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("finetune", "--config", "finetune/adapt", "--data", "anomalib.data.Visa"), r"\bname\W is required"),
        (("finetune", "--config", "finetune/adapt", "--name", "x"), r"\bdata\W is required"),
        (("finetune", "--config", "finetune/adapt", "--nme", "x"), "Unrecognized arguments: --nme x"),
        (("pretrain", "--config", "pretrain/small"), 'Parser key "model"'),
        (("pretrain", "--config", "pretrain/simsiam_spd", "--trainer.max_steps", "two"), "Got value: two"),
        (("twoclass", "--config", "twoclass/classifier", "--trainer.max_steps", "two"), "Got value: two"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(
    args: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert re.search(message, err)
    assert err.endswith(f"('anomalib-spd {args[0]} --help all' has all options)\n")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


VISA = ("--data", "anomalib.data.Visa")


@pytest.mark.parametrize(
    ("args", "folder", "option"),
    [
        *((("pretrain", f"pretrain/{name}_spd"), "imagenet/train", "root") for name in ("supervised", "moco", "dense")),
        (("pretrain", "pretrain/cross_image_spd"), "imagenet/train", "replay_images"),
        (("pretrain", "pretrain/cross_image_spd_real"), "categories", "normal"),
        (("twoclass", "twoclass/classifier"), "visa", "root"),
        (("finetune", "finetune/adapt", *VISA, "--name", "new"), "visa", "root"),
    ],
)
def test_a_recipe_without_its_images_names_the_option_and_writes_nothing(
    args: tuple[str, ...],
    folder: str,
    option: str,
    tmp_path: Path,
    registry: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in ("anomalib.data.datamodules.image.visa", "anomalib_spd.twoclass.visa"):
        monkeypatch.setattr(f"{module}.download_and_extract", pytest.fail)
    command, recipe, *more = args
    assert main([command, "--config", recipe, *more, "--trainer.accelerator", "cpu"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert f" datasets/{folder} does not exist. Give another with --data.{option}" in errors[0]
    assert not [path for path in tmp_path.iterdir() if path != registry]


def test_a_wrapped_data_module_is_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["twoclass", "--config", "twoclass/classifier_small", "--data.datamodule", "anomalib.data.MVTecAD"]
    assert main(args) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: The folder of images datasets/MVTecAD does not exist. Give another with ")
    option = line.split("Give another with ")[1].split(",")[0]
    assert main([*args, option, str(tmp_path / "elsewhere")]) == 1
    assert f"folder of images {tmp_path / 'elsewhere'} does not exist" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
