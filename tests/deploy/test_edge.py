"""``docs/howto/deploy.md`` is walked: from a folder of good parts to 8 bits, scored where there is no PyTorch."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_spd.cli.main import main
from anomalib_spd.deploy import runtimes
from tests.conftest import REPOSITORY, reloads_checkpoints

START, PAGE = REPOSITORY / "docs/start.md", REPOSITORY / "docs/howto/deploy.md"


def block(page: Path, language: str, holding: str) -> str:
    (found,) = [
        text for text in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL) if holding in text
    ]
    return str(found)


def run_commands(text: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        if words[0] == "anomalib-spd":
            assert main(words[1:]) == 0, line


@pytest.mark.slow
@reloads_checkpoints
def test_from_good_parts_to_a_machine_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block(START, "python", "copytree"), "start.md", "exec"), {})
    run_commands(
        block(
            START, "console", "anomalib-spd train --config patchcore_spd --data anomalib.data.Folder --data.name parts "
        )
    )
    run_commands(block(PAGE, "console", "anomalib-spd deploy"))

    subprocess.run([sys.executable, "-m", "venv", tmp_path / "edge"], check=True)
    python = next(path for path in (tmp_path / "edge").glob("*/python*") if path.stem == "python")
    (install,) = re.findall(r"`(pip install openvino.*?)`", PAGE.read_text())
    subprocess.run([python, "-m", *install.split(), "--quiet", "--disable-pip-version-check"], check=True)
    absent = "import importlib.util as u; assert not any(u.find_spec(n) for n in ('torch', 'anomalib', 'anomalib_spd'))"
    subprocess.run([python, "-P", "-c", absent], check=True, cwd=tmp_path)
    program = block(PAGE, "python", "import openvino")
    # ten lines, beside the imports
    assert len([line for line in program.splitlines() if line.strip() and not re.match("import|from", line)]) <= 10
    done = subprocess.run([python, "-P", "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path)

    with Image.open(tmp_path / "new/000.png") as file:
        images = np.asarray(file.convert("RGB"), dtype=np.float32).transpose(2, 0, 1)[None] / 255
    found = runtimes.scorer("openvino-int8", tmp_path / "deployed/weights/openvino-int8/model.xml", 1)(images)
    expected = f"score {found['pred_score'].item():.2f}, defective: {bool(found['pred_label'].item())}\n"
    assert done.stdout == expected
    record = json.loads((tmp_path / "deployed/deploy.json").read_text())
    assert record["formats"]["openvino"]["score_difference"]["largest"] < 1e-3
    int8 = record["formats"]["openvino-int8"]
    assert int8["score_difference"]["mean"] < 0.03
    assert int8["differences"]["image_AUROC"]["value"] >= -0.05
