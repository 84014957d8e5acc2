"""`speed/augmentation.py`, on a few small images: every row is there; its figures mean nothing."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

SMALL = ("--batch", "2", "--size", "32", "--rounds", "1", "--device", "cpu")


@pytest.mark.slow
def test_every_transform_is_timed() -> None:
    command = [sys.executable, str(REPOSITORY / "speed" / "augmentation.py"), *SMALL]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = {line[:36].strip(): line[36:].split() for line in printed.splitlines() if line[:36].strip()}
    for name in ("SmoothBlend", "CutPaste", "CutSwap", "CutSwap, given maps"):
        assert float(rows[name][0]) > 0
    assert {"CutPasteScar", "CutSwapScar", "kmeans_1d", "VGG16, 4 images"} <= rows.keys()
