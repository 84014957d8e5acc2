"""The table of metrics, from which cells of a grid, tables of a report and the probe are made.

A new metric is one entry of ``METRICS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from anomalib.metrics import F1Max
from torch import Tensor

from anomalib_spd.metrics.ranking import AUPRO, AUROC, AUPR_step, AUPR_trapezoid, AUPR_visa, RankingMetric


@dataclass(frozen=True)
class Metric:
    """One metric of a detector.

    Attributes:
        level: whether it judges images or pixels.
        function: a metric class of anomalib.
        label: heading of a table.
        in_report: whether the report has a column of it.
        in_probe: whether ``training.probe`` logs it.
    """

    level: Literal["image", "pixel"]
    function: type[Any]
    label: str
    in_report: bool = True
    in_probe: bool = False

    @property
    def name(self) -> str:
        """Its key in records and logs, and its column in tables of results, such as ``pixel_AUPR_step``."""
        return f"{self.level}_{self.function.__name__}"

    @property
    def area(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The metric as a function of counts per score (see ``areas``), where there is one: the bootstrap needs it."""
        return getattr(self.function, "area", None)

    @property
    def bootstrapped(self) -> bool:
        """Whether the report gives intervals of its differences."""
        return self.area is not None and self.in_report

    def build(self, binned: bool = False, **kwargs: Any) -> Any:
        """Return a new metric for anomalib's ``Evaluator``.

        Args:
            binned: bound the memory of metrics that can (see ``RankingMetric``).
            kwargs: further arguments of ``function``.
        """
        if issubclass(self.function, RankingMetric):
            kwargs["binned"] = binned
        fields = ["pred_score", "gt_label"] if self.level == "image" else ["anomaly_map", "gt_mask"]
        return self.function(fields, prefix=f"{self.level}_", **kwargs)


METRICS = (
    Metric("image", AUROC, "image AU-ROC", in_probe=True),
    Metric("image", AUPR_step, "image AU-PR (step)", in_probe=True),
    Metric("image", AUPR_trapezoid, "image AU-PR (trapezoid)"),
    Metric("image", F1Max, "image F1-max", in_report=False),
    Metric("pixel", AUROC, "pixel AU-ROC"),
    Metric("pixel", AUPR_step, "pixel AU-PR (step)", in_probe=True),
    Metric("pixel", AUPR_trapezoid, "pixel AU-PR (trapezoid)"),
    Metric("pixel", F1Max, "pixel F1-max", in_report=False),
    Metric("pixel", AUPR_visa, "pixel AU-PR (VisA's 202 thresholds)"),
    Metric("pixel", AUPRO, "pixel AU-PRO"),
)
