"""The benchmark of pre-training runs, and its figures belong together."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SPEED = Path(__file__).parents[2] / "speed"
SMALL = (
    "--backbone test_efficientnet --image-size 32 --batch 4 --rounds 2 --steps 1 --warm-up 1 --device cpu --threads 1"
)
#: as on a machine on which nobody installed it
WITHOUT_LIGHTLY = """
import importlib.util, runpy, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "lightly" else find_spec(name, *rest)
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# a process that trains several times
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (8, 40, 48, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def _printed(*command: str | Path) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _tables(text: str) -> list[dict[str, list[str]]]:
    """Every Markdown table as its rows by their first column."""
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n")] for table in tables]
    return [{name: cells for name, *cells in table[2:] if cells} for table in rows]


def test_all_methods_are_compared(images: Path) -> None:
    methods = "--methods simsiam moco simclr supervised"
    text = _printed(SPEED / "pretraining.py", "--data", images, *SMALL.split(), *methods.split(), "--formats")
    speeds, ratios, *parts, formats = _tables(text)
    assert [speeds[f"{name} + SPD"][0] for name in ("SimSiam", "MoCo v2", "SimCLR", "supervised")] == [
        "5",
        "5",
        "5",
        "4",
    ]
    for views, seconds, images_per_second, views_per_second, busy in speeds.values():
        assert float(images_per_second) == pytest.approx(4 / float(seconds), rel=0.2, abs=0.01)
        assert float(views_per_second) == pytest.approx(float(views) * float(images_per_second), rel=0.01, abs=0.1)
        assert 0 < float(busy) < 2
    assert "encoder alone, 4 views and 1 without gradient" in speeds
    assert ("lightly's SimSiam" in speeds) == bool(find_spec("lightly"))
    assert len(ratios) == 5 + 2 * bool(find_spec("lightly"))
    for ratio, span, aim in ratios.values():
        least, most = map(float, span.split(" to "))
        assert 0 < least <= float(ratio) <= most
        assert re.fullmatch(r"[\d.]+ or (more|less)", aim)
    assert len(parts) == 4
    for table in parts:
        assert {"augmentation", "backward", "waiting for the loader, transfer"} < set(table)
        assert sum(float(share.rstrip("%")) for _, share in table.values()) == pytest.approx(100, abs=0.5)
    assert formats["float32, channels_last"][1] == "1.00"
    assert set(formats) == {
        f"{dtype}, {layout}" for dtype in ("float32", "bfloat16") for layout in ("channels_last", "contiguous")
    }


def test_bfloat16_and_without_lightly(images: Path) -> None:
    script = SPEED / "pretraining.py"
    text = _printed("-c", WITHOUT_LIGHTLY, script, "--data", images, *SMALL.split(), "--precision", "bf16-mixed")
    assert "lightly is not installed and is left out" in text
    speeds, ratios, _ = _tables(text)
    assert list(speeds) == ["encoder alone, 5 views", "SimSiam + SPD", "SimSiam without SPD"]
    assert len(ratios) == 2
