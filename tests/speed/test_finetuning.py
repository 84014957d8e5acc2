"""The benchmark of fine-tuning runs, and its figures belong together."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# a process that trains several times
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "speed" / "finetuning.py"
SMALL = (
    "--backbone test_efficientnet --image-size 64 --batch 3 --images 7 --rounds 2 --steps 1 --batches 2 --warm-up 1 "
    "--workers 1 --device cpu --threads 1"
)
AIMS = {"CutSwap, ours": "3 or more", "CutPaste, ours": "3 or more"}
Table = dict[str, list[str]]


def _tables(text: str) -> list[Table]:
    """Every Markdown table as its rows by their first column."""
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n")] for table in tables]
    return [{name: cells for name, *cells in table[2:] if cells} for table in rows]


def _share(cell: str) -> float:
    return float(cell.removesuffix("%")) / 100


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Table]:
    folder = tmp_path_factory.mktemp("images")
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (8, 70, 90, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    command = [sys.executable, str(SCRIPT), "--data", str(folder), *SMALL.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "test_efficientnet, batch 3, 9 inputs of 64 px, 7 images, 32-true" in done.stdout
    return _tables(done.stdout)


def test_maps_are_timed_cold_and_warm(tables: list[Table]) -> None:
    maps = tables[0]
    step = float(maps["a step of the classifier"][0])
    assert set(maps) == {"computed and kept", "kept from before", "computed alone", "a step of the classifier"}
    for milliseconds, ratio, span, aim in maps.values():
        least, most = map(float, span.split(" to "))
        assert 0 < least <= float(ratio) <= most
        assert 0 < float(milliseconds) < 100 * step
        assert aim in ("", "1 or less, once")
    assert float(maps["kept from before"][0]) < float(maps["computed and kept"][0])


def test_parts_make_up_a_step(tables: list[Table]) -> None:
    parts, shares = tables[1:3]
    *each, total = parts.values()
    assert len(each) == 7
    for column in (0, 2):
        assert all(float(cells[column]) > 0 for cells in each[1:])
        assert sum(_share(cells[column + 1]) for cells in each) == pytest.approx(1, abs=0.1)
        assert sum(_share(cells[column + 1]) for cells in each[:4]) == pytest.approx(_share(total[column + 1]), abs=0.1)
    # CutPaste needs no maps
    saliency = parts["saliency, kept from before"]
    assert float(saliency[2]) < float(saliency[0])
    assert [aim for *_, aim in shares.values()] == ["15% or less"] * 2
    assert [cells[0] for cells in shares.values()] == [total[1], total[3]]


@pytest.mark.parametrize(
    ("first", "others"),
    [
        (3, ["encoder, head and optimiser alone, ours", "encoder, head and optimiser alone, theirs"]),
        (5, ["decoding alone, ours", "CutPaste, image by image, of images in memory"]),
    ],
)
def test_both_sides_are_compared(tables: list[Table], first: int, others: list[str]) -> None:
    speeds, ratios = tables[first : first + 2]
    assert len(tables) == 7
    assert set(ratios) == {*AIMS, *others}
    assert set(speeds) == {*ratios, "CutPaste, image by image"}
    for seconds, images, waiting, bound in speeds.values():
        assert float(images) == pytest.approx(3 / float(seconds), rel=0.3)
        assert 0 <= _share(waiting) <= 1
        # the table rounds the share: at 50.0% either may be the one
        if _share(waiting) != 0.5:
            assert bound == ("the loader" if _share(waiting) > 0.5 else "the step")
    for name, (ratio, span, aim) in ratios.items():
        least, most = map(float, span.split(" to "))
        assert 0 < least <= float(ratio) <= most
        assert aim == AIMS.get(name, aim)
