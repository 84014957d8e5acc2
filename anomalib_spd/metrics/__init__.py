"""Metrics of anomaly detection: areas under curves, exact or on a grid of thresholds."""
