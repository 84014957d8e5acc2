"""Metrics of anomaly detection for anomalib's ``Evaluator``, and the table from which grids and reports take them."""

from anomalib_spd.metrics.ranking import AUROC, AUPR_step, AUPR_trapezoid, AUPR_visa
from anomalib_spd.metrics.table import METRICS, Metric

__all__ = ["AUROC", "METRICS", "AUPR_step", "AUPR_trapezoid", "AUPR_visa", "Metric"]
