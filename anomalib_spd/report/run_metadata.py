"""Under which circumstances the cells of a grid were measured: settings, data, weights, costs, failures."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from anomalib_spd.benchmark.results import Result
from anomalib_spd.report.comparison import Findings
from anomalib_spd.report.tables import NOTHING, Row, Table, words


def costs_table(findings: Findings) -> Table:
    """How long the cells of every detector and backbone took, and how much memory, on the mean.

    Args:
        findings: of a folder of results.
    """
    rows = []
    for detector in findings.grid.detectors:
        for place, backbone in enumerate(findings.grid.backbones):
            records = [result.record for result in findings.of(backbone, detector)]
            images = [record["sizes"]["test_normal"] + record["sizes"]["test_anomalous"] for record in records]
            seconds = [record["seconds"] for record in records]
            memory = [record["peak_memory_bytes"] for record in records if record["peak_memory_bytes"]]
            each = [1000 * second["inference"] / count for second, count in zip(seconds, images, strict=True)]
            figures = [
                _mean([second["fit"] for second in seconds], ".1f"),
                _mean([second["inference"] for second in seconds], ".1f"),
                _mean(each, ".0f"),
                _mean([peak / 2**30 for peak in memory], ".2f"),
            ]
            fields = words(detector, backbone, str(len(records)), *figures)
            rows.append(Row(fields, "" if place else "first"))
    head = ["detector", "backbone", "cells", "fit, s", "inference, s", "inference per image, ms", "peak memory, GiB"]
    return Table(head, rows, 2)


def images_table(findings: Findings) -> Table:
    """How many images every category has.

    Args:
        findings: of a folder of results.
    """
    rows = []
    for category in findings.grid.categories:
        sizes = [result.record["sizes"] for result in findings.of(category=category)]
        counts = [
            " / ".join(dict.fromkeys(str(size.get(key, 0)) for size in sizes)) or NOTHING
            for key in ("train_images", "train_anomalous", "test_normal", "test_anomalous")
        ]
        masks = any("pixel_AUROC" in result.metrics for result in findings.of(category=category))
        rows.append(Row(words(category, ("yes" if masks else "no") if sizes else NOTHING, *counts), "first"))
    return Table(["category", "masks", "training", "of them anomalous", "test, normal", "test, anomalous"], rows, 2)


def weights_table(findings: Findings) -> Table:
    """Which weights every backbone had.

    Args:
        findings: of a folder of results.
    """
    rows = []
    for label in findings.grid.backbones:
        records = [r.record["backbone"] for r in findings.results.values() if r.cell.backbone == label]
        known = dict.fromkeys((r["name"], r["architecture"], r["weights_sha256"]) for r in records)
        for place, facts in enumerate(known or [(findings.grid.name(label), None, None)]):
            rows.append(Row(words(label, *(fact or NOTHING for fact in facts)), "" if place else "first"))
    return Table(["backbone", "name", "architecture", "sha256 of the weights"], rows, 4)


def failures_table(findings: Findings) -> Table:
    """Every failed cell with its error.

    Args:
        findings: of a folder of results.
    """
    rows = []
    for result in findings.failed:
        error = result.record["error"]
        rows.append(Row(words(str(result.cell), error["type"], " ".join(error["message"].split())[:500]), "first"))
    return Table(["cell", "error", "message"], rows, 3)


def settings(results: Sequence[Result]) -> list[str]:
    """Under which settings some cells were measured, as a list of phrases.

    Args:
        results: measured cells.
    """

    def distinct(phrases: Iterable[str]) -> str:
        return " / ".join(dict.fromkeys(phrases))

    def pixels(size: Any) -> str:
        return f"{size[0]} x {size[1]} px" if size else "not resized"

    records = [result.record for result in results]
    sizes = [record["sizes"] for record in records]
    ratios = [size["coreset_sampling_ratio"] for size in sizes]
    return [
        distinct(record["config"]["model"]["class_path"] for record in records),
        "images " + distinct(pixels(size["image_size"]) for size in sizes),
        distinct(f"centre crop {pixels(size['crop'])}" if size["crop"] else "no crop" for size in sizes),
        distinct(f"anomaly map {pixels(size['map'])}" for size in sizes),
        *([f"coreset {distinct(map(str, ratios))}"] if any(ratios) else []),
        distinct("on " + record["device"] for record in records),
        distinct(f"{record['threads']} thread" + "s" * (record["threads"] != 1) for record in records),
        distinct(", ".join(f"{name} {version}" for name, version in r["versions"].items()) for r in records),
    ]


def _mean(values: Sequence[float], form: str) -> str:
    return format(float(np.mean(values)), form) if values else NOTHING
