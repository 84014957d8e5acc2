"""Detectors that end their process, as the system does when memory runs out, or wait; a module that such a process imports."""

import os
import tempfile
import time
from typing import Any

from anomalib.models import Padim


class CrashingDetector(Padim):
    """A detector in which the process ends."""

    def __init__(self, layers: list[str], backbone: str = "small_a", **kwargs: Any) -> None:
        super().__init__(backbone=backbone, layers=layers, n_features=10, **kwargs)

    def fit(self) -> None:
        os._exit(9)


class WaitingDetector(CrashingDetector):
    """A detector that makes a temporary folder, and waits until its process is ended."""

    def fit(self) -> None:
        tempfile.mkdtemp()
        print("waits", flush=True)
        time.sleep(600)
