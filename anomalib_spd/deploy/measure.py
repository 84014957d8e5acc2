"""Measures exported detectors beside the trained one, on the same images and in turns."""

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, ImageBatch
from anomalib.models.components import AnomalibModule
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped]

from anomalib_spd.benchmark.recorder import ScoreRecorder
from anomalib_spd.deploy import runtimes
from anomalib_spd.metrics import METRICS
from anomalib_spd.report.bootstrap import bootstrap, interval

TRAINED = "trained"
#: of images, and of pixels where there are masks
JUDGED = ("image_AUROC", "image_AUPR_step", "pixel_AUROC", "pixel_AUPR_step")
#: scores of pixels that a metric keeps; of more, it counts them in bins
_EXACT_LIMIT = 2**23
#: images that are timed, and how often each
_TIMED, _ROUNDS = 10, 5
#: instructions by which a CPU computes in 8 bits
_INT8 = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


class Trained:
    """A trained detector as Lightning runs it: transform, network, post-processor.

    Args:
        detector: in evaluation mode.
    """

    def __init__(self, detector: AnomalibModule) -> None:
        self.detector: Any = detector

    @torch.inference_mode()
    def __call__(self, batch: ImageBatch) -> ImageBatch:
        """Return a batch with its masks resized and its predictions.

        Args:
            batch: images ``(B, 3, H, W)``, float32 in [0, 1].
        """
        batch = replace(batch)
        if self.detector.pre_processor:
            self.detector.pre_processor.on_test_batch_start(None, None, batch, 0)
        found: ImageBatch = self.detector.test_step(batch, 0)
        if self.detector.post_processor:
            self.detector.post_processor.on_test_batch_end(None, None, found)
        return found


class _Judged:
    """The predictions of one form of a detector on all test images, beside those of the trained one."""

    def __init__(self, pixels: bool, binned: bool) -> None:
        self.recorder = ScoreRecorder()
        self.metrics = {
            each.name: each.build(binned and each.level == "pixel")
            for each in METRICS
            if each.name in JUDGED and (pixels or each.level == "image")
        }
        self.score_differences: list[float] = []
        self.map_differences: list[tuple[float, float]] = []
        self.flipped = 0

    def add(self, batch: Any, trained: Any) -> None:
        """Add a batch with its predictions, and with the trained detector's."""
        self.recorder.record(batch)
        for metric in self.metrics.values():
            metric.update(batch)
        self.score_differences += (batch.pred_score - trained.pred_score).abs().flatten().tolist()
        if batch.anomaly_map is not None and trained.anomaly_map is not None:
            differences = (batch.anomaly_map - trained.anomaly_map).abs()
            self.map_differences.append((float(differences.max()), float(differences.mean())))
        if batch.pred_label is not None and trained.pred_label is not None:
            self.flipped += int((batch.pred_label.bool() != trained.pred_label.bool()).sum())

    def differences(self) -> dict[str, Any]:
        """Return how far scores, maps and labels are from the trained detector's."""
        scores, maps = self.score_differences, self.map_differences
        return {
            "score_difference": {"largest": max(scores), "mean": statistics.fmean(scores)},
            "map_difference": {"largest": max(a for a, _ in maps), "mean": statistics.fmean(b for _, b in maps)}
            if maps
            else None,
            "labels_flipped": self.flipped,
        }

    def values(self) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
        """Return the metrics that are defined, and of each its values over resamples of the images."""
        scores = self.recorder.scores()
        levels = {name.partition("_")[0] for name in self.metrics} - scores.undefined.keys()
        values = {
            name: float(each.compute()) for name, each in self.metrics.items() if name.partition("_")[0] in levels
        }
        return values, {name: each for level in sorted(levels) for name, each in bootstrap(scores, level).items()}


def parity(
    detector: AnomalibModule, files: Mapping[str, Path], data: AnomalibDataModule, threads: int
) -> dict[str, Any]:
    """Return how exported detectors judge the test images, each beside the trained one.

    Args:
        detector: the trained one.
        files: of exported ones, by format.
        data: a data module, set up.
        threads: of the CPU.
    """
    torch.set_num_threads(threads)
    scorers = {name: runtimes.scorer(name, path, threads) for name, path in files.items()}
    trained = Trained(detector)
    judged: dict[str, _Judged] = {}
    for index in tqdm(range(len(data.test_data)), desc="Test images", disable=None):
        batch = data.test_data.collate_fn([data.test_data[index]])
        expected: Any = trained(batch)
        if not judged:
            pixels = expected.anomaly_map is not None and expected.gt_mask is not None
            binned = pixels and len(data.test_data) * expected.anomaly_map.numel() > _EXACT_LIMIT
            judged = {name: _Judged(pixels, binned) for name in (TRAINED, *files)}
        judged[TRAINED].add(expected, expected)
        for name, score in scorers.items():
            judged[name].add(_with(expected, score(batch.image.numpy())), expected)
    expected_values, expected_resampled = judged[TRAINED].values()
    found: dict[str, Any] = {TRAINED: {"metrics": expected_values}}
    for name in files:
        values, resampled = judged[name].values()
        differences = {
            metric: interval(value - expected_values[metric], resampled[metric] - expected_resampled[metric])
            for metric, value in values.items()
        }
        found[name] = {
            **judged[name].differences(),
            "metrics": values,
            "differences": {
                metric: {"value": each.value, "low": each.low, "high": each.high}
                for metric, each in differences.items()
            },
        }
    return found


def speed(
    detector: AnomalibModule, files: Mapping[str, Path], data: AnomalibDataModule, threads: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Return images a second at batch 1, by form of the detector and number of threads: of a median over runs in turns.

    Args:
        detector: the trained one.
        files: of exported ones, by format.
        data: a data module, set up.
        threads: numbers of threads.
    """
    step = max(1, len(data.test_data) // _TIMED)
    batches = [data.test_data.collate_fn([data.test_data[i]]) for i in range(0, len(data.test_data), step)][:_TIMED]
    found: dict[str, dict[str, float]] = {name: {} for name in (TRAINED, *files)}
    with tqdm(total=len(threads) * _ROUNDS * len(batches), desc="Timing", disable=None) as progress:
        for number in threads:
            scorers: dict[str, Any] = {name: runtimes.scorer(name, path, number) for name, path in files.items()}
            torch.set_num_threads(number)
            trained = Trained(detector)
            forms = {TRAINED: trained} | {
                name: lambda batch, score=score: score(batch.image.numpy()) for name, score in scorers.items()
            }
            seconds: dict[str, list[float]] = {name: [] for name in forms}
            for form in forms.values():  # the first run of each prepares it
                form(batches[0])
            for _ in range(_ROUNDS):
                for batch in batches:
                    for name, form in forms.items():
                        start = time.perf_counter()
                        form(batch)
                        seconds[name].append(time.perf_counter() - start)
                    progress.update()
            for name, taken in seconds.items():
                found[name][str(number)] = 1 / statistics.median(taken)
    return found


def peak_memory(name: str, path: Path, size: tuple[int, int]) -> int | None:
    """Return the peak memory, bytes, of a process that only loads an exported detector and scores an image.

    Args:
        name: of the format.
        path: of the file.
        size: height and width of the image, pixels.
    """
    program = [sys.executable, "-P", runtimes.__file__, name, str(path), *map(str, size)]
    run = subprocess.run(program, capture_output=True, text=True, check=False)
    return int(run.stdout.split()[-1]) if run.returncode == 0 else None


def machine() -> dict[str, Any]:
    """Return the processor's name, and those of its instructions that compute in 8 bits, where the system tells."""
    text = ""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    flags = set(text.split())
    return {
        "processor": next(iter(names), platform.processor() or platform.machine()),
        "int8_instructions": [each for each in _INT8 if each in flags],
    }


def _with(batch: Any, found: dict[str, NDArray[Any]]) -> Any:
    """Return a batch with other predictions, in the shapes of its own."""
    tensors = {
        name: None if (own := getattr(batch, name)) is None or name not in found
        else torch.from_numpy(found[name]).reshape(own.shape)
        for name in ("pred_score", "pred_label", "anomaly_map", "pred_mask")
    }  # fmt: skip
    return replace(batch, **tensors)
