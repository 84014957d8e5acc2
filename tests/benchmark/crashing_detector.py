"""A detector that ends its process, as the system does when memory runs out; a module that such a process imports."""

import os
from typing import Any

from anomalib.models import Padim


class CrashingDetector(Padim):
    """A detector in which the process ends."""

    def __init__(self, layers: list[str], backbone: str = "small_a", **kwargs: Any) -> None:
        super().__init__(backbone=backbone, layers=layers, n_features=10, **kwargs)

    def fit(self) -> None:
        os._exit(9)
