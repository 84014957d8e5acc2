"""The checks for a GPU run on the CPU, where every difference must be within its tolerance."""

import subprocess
import sys
from pathlib import Path

import pytest

# a process that trains
pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "speed" / "gpu.py"
SMALL = "--device cpu --size 64 --batch 4 --rounds 1 --precisions bf16-mixed --no-compile"
TITLES = ["Transforms", "LayerCAM", "Trainings", "PatchCore", "PatchCore", "Throughput"]


def test_all_is_within_its_tolerance() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *SMALL.split()], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    titles = [line.removeprefix("## ").partition(":")[0] for line in done.stdout.splitlines() if line.startswith("## ")]
    assert titles == TITLES
    assert "All is within its tolerance." in done.stdout
    assert "not well" not in done.stdout
