"""The benchmark of prediction runs, and its figures belong together."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

# a process of its own
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "speed" / "prediction.py"
SMALL = "--networks test_efficientnet:64 --batches 1 3 --points 50 --images 5 --rounds 2 --threads 1"


def test_parts_make_up_the_prediction() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *SMALL.split()], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|.*$", done.stdout, re.MULTILINE)
    ]
    networks = [cells for cells in rows if cells[0] == "test_efficientnet, 64"]
    assert [cells[1] for cells in networks] == ["1", "3"]
    for *_, encoder, stock, ours, over_stock, over_encoder, beside, bank in networks:
        assert float(ours) / float(stock) == pytest.approx(float(over_stock), rel=0.5)
        assert float(ours) / float(encoder) == pytest.approx(float(over_encoder), rel=0.5)
        assert float(beside) == 1
        assert float(bank) > 0
    parts = [cells for cells in rows if len(cells) == 3]
    assert parts[0] == ["part", "stock", "ours"]
    ends = [number for number, cells in enumerate(parts) if cells[0] == "in all"]
    assert len(ends) == 2
    for column in (1, 2):
        for end in ends:
            *each, total = [float(cells[column]) for cells in parts[end - 9 : end + 1]]
            assert sum(each) == pytest.approx(total, abs=0.5)
            assert all(milliseconds >= 0 for milliseconds in each)
