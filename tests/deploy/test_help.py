"""The help of ``anomalib-spd deploy``, and its options."""

import re
from pathlib import Path

import pytest

from anomalib_spd.cli.main import main
from anomalib_spd.cli.short_help import SHORT_HELP
from anomalib_spd.deploy.export import FORMATS


def test_every_option_of_the_help_is_the_parsers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["deploy", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text == SHORT_HELP["deploy"]
    assert all(name in text for name in FORMATS)
    options = re.findall(r"^  (--[\w.]+)", text, re.MULTILINE)
    assert len(options) == 7
    with pytest.raises(SystemExit) as caught:
        main(["deploy", "--help", "all"])
    assert caught.value.code == 0
    whole = capsys.readouterr().out
    assert all(option in whole for option in options if "." not in option)


def test_options_may_stand_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text("data: {class_path: anomalib.data.Visa, init_args: {category: pcb1}}\nformats: [onnx]\n")
    with pytest.raises(SystemExit) as caught:
        main(["deploy", "--config", str(file), "--ckpt_path", "a.ckpt", "--output", "there", "--print_config"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "category: pcb1" in printed
    assert "ckpt_path: a.ckpt" in printed


@pytest.mark.parametrize("args", [[], ["--ckpt_path", "a.ckpt"], ["--paint"]])
def test_wrong_usage_is_one_line(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["deploy", *args])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "'anomalib-spd deploy --help' has the options" in line
