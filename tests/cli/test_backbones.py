"""The command ``anomalib-spd backbones``."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm

from anomalib_spd.backbones import add, available, find
from anomalib_spd.cli.main import main


def run(args: list[str]) -> int:
    return main(["backbones", *args])


NAME = "efficientnet_lite0_in1k"

# nothing here may write to the registry of who runs the tests
pytestmark = pytest.mark.usefixtures("registry")


def test_from_end_to_end(save: Any, registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(architecture="resnet18")
    assert (
        run(["add", "mine_spd.v1", str(path), "--architecture", "resnet18", "--license", "mit", "--data", "own"]) == 0
    )
    out, err = capsys.readouterr()
    assert out.startswith(f"Added mine_spd.v1 (resnet18) in {registry / 'mine_spd.v1'}\n")
    assert 'Patchcore(backbone="mine_spd.v1", layers=["layer2", "layer3"])' in out
    assert err == ""

    assert run(["list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["NAME", "ARCHITECTURE", "LAYERS", "N_FEATURES", "LICENCE", "WHERE"]
    assert ["mine_spd.v1", "resnet18", "layer2,layer3", "100", "mit", "own"] in rows
    assert [NAME, "tf_efficientnet_lite0", "blocks.2,blocks.4", "100", "apache-2.0", "catalogue"] in rows
    assert len(rows) == 1 + len(available())

    assert run(["show", "mine_spd.v1"]) == 0
    out = capsys.readouterr().out
    provenance = find("mine_spd.v1").provenance
    assert provenance.command == (
        f"anomalib-spd backbones add mine_spd.v1 {path} --architecture resnet18 --license mit --data own"
    )
    for text in ("resnet18", "mit", provenance.command, provenance.sha256, "the checksum is right", str(registry)):
        assert text in out
    lines = out.splitlines()
    assert 'Patchcore(backbone="mine_spd.v1", layers=["layer2", "layer3"])' in lines
    assert 'Padim(backbone="mine_spd.v1", layers=["layer1", "layer2", "layer3"], n_features=100)' in lines

    assert run(["export", "mine_spd.v1", str(tmp_path / "out")]) == 0
    assert f'backbone="local-dir:{tmp_path / "out"}"' in capsys.readouterr().out
    assert timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).num_classes == 1000

    assert run(["add", "copy_spd", str(tmp_path / "out")]) == 0
    assert run(["remove", "mine_spd.v1"]) == 0
    assert capsys.readouterr().out.endswith("Removed mine_spd.v1\n")
    assert [f.name for f in registry.iterdir()] == ["copy_spd"]


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "anomalib_spd", "backbones", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.communicate(timeout=120)[1] == ""
    assert process.returncode == 0


def test_the_lines_shown_are_those_that_anomalib_takes(capsys: pytest.CaptureFixture[str]) -> None:
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    assert run(["show", NAME]) == 0
    patchcore, padim = capsys.readouterr().out.splitlines()[-2:]
    eval(patchcore, {"Patchcore": PatchcoreModel})  # our own text
    eval(padim, {"Padim": PadimModel})


def test_statistics_and_checksum(save: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(architecture="test_resnet")
    command = ["add", "mine_spd", str(path), "--architecture", "test_resnet"]
    assert run([*command, "--mean", ".5", "-.1", "0", "--std", ".5", ".5", "1", "--sha256", "0" * 64]) == 1
    assert "expected 0000" in capsys.readouterr().err
    assert run([*command, "--mean", ".5", "-.1", "0", "--std", ".5", ".5", "1"]) == 0
    assert "mean=[0.5, -0.1, 0.0]" in find("mine_spd").provenance.recipe


def test_warnings_are_lines(save: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(architecture="test_resnet")
    assert run(["add", "mine_spd", str(path), "--architecture", "test_resnet"]) == 0
    err = capsys.readouterr().err
    assert re.fullmatch(r"warning: ImageNet's mean and std are assumed for weights.pth.*\n", err)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["show", "none_spd"], "There is no backbone 'none_spd'"),
        (["remove", "none_spd"], "There is no backbone 'none_spd'"),
        (["remove", NAME], "belongs to the package"),
        (["export", "none_spd", "out"], "There is no backbone 'none_spd'"),
        (["add", "mine_spd", "none.pth", "--architecture", "resnet18"], "Cannot read none.pth: No such file"),
        (["add", "mine_spd", "none.pth", "--architecture", "resnet81"], "Unknown architecture 'resnet81'"),
        (["add", "../mine", "none.pth", "--architecture", "resnet18"], "cannot be a backbone's name"),
        (["add", NAME, "none.pth"], "is taken in the catalogue"),
        (["add", "a\nb", "none.pth"], "cannot be a backbone's name"),
    ],
)
def test_errors_are_one_line(args: list[str], message: str, registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(args) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not registry.exists()


def test_show_tells_damaged_weights(save: Any, capsys: pytest.CaptureFixture[str]) -> None:
    add("mine_spd", save(), "test_efficientnet").weights.write_bytes(b"")
    assert run(["show", "mine_spd"]) == 1
    out, err = capsys.readouterr()
    assert "test_efficientnet" in out
    assert "the checksum is right" not in out
    assert "error: The weights of backbone 'mine_spd' are not those that were put there" in err


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["paint"],
        ["add", "mine_spd"],
        ["add", "mine_spd", "weights.pth", "--mean", "1", "2"],
        ["add", "mine_spd", "weights.pth", "--std", "a", "b", "c"],
        ["show"],
    ],
)
def test_wrong_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(args)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "('anomalib-spd backbones" in line
    assert line.endswith("--help' has all options)")


@pytest.mark.parametrize("command", [None, "list", "show", "add", "remove", "export"])
def test_help(command: str | None, registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["backbones", *([command] if command else []), "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    if command is None:
        assert str(registry) in out.replace("\n", "")
        assert "ANOMALIB_SPD_HOME" in out
    if command == "add":
        assert "anomalib-spd backbones add resnet50_moco" in out
        assert "{" not in out


def test_help_survives_percent_signs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ANOMALIB_SPD_HOME", "/data/100%s {x}")
    with pytest.raises(SystemExit) as caught:
        run(["--help"])
    assert caught.value.code == 0
    assert "/data/100%s {x}" in capsys.readouterr().out
