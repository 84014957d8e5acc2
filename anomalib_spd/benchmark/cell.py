"""One cell of a grid: a stock anomalib run and its record."""

import inspect
import math
import os
import platform
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from pydoc import locate
from typing import Any, cast

import timm
import torch
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Trainer, seed_everything

from anomalib_spd.backbones import available
from anomalib_spd.benchmark.build import Config, build
from anomalib_spd.benchmark.features import SharedFeatures
from anomalib_spd.benchmark.grid import backbone_parameter
from anomalib_spd.benchmark.recorder import ScoreRecorder
from anomalib_spd.benchmark.results import Cell, Scores
from anomalib_spd.benchmark.threshold import operating_point
from anomalib_spd.data.masks import has_masks
from anomalib_spd.data.ready import fingerprint, naming_unreadable, set_up
from anomalib_spd.files import digest
from anomalib_spd.metrics import METRICS
from anomalib_spd.version import __version__

#: scores that a pixel metric keeps; of more, it counts them in bins
EXACT_LIMIT = 2**25
#: of what data modules draw: all cells of a category have the same images, whatever their own seed
SPLIT_SEED = 0
PACKAGES = ("anomalib", "torch", "lightning", "timm", "numpy")


@dataclass(frozen=True)
class Plan:
    """The settings of a cell.

    Attributes:
        cell: which one.
        model: ``class_path`` and ``init_args`` of the detector.
        data: of the data module.
        trainer: arguments of Lightning's trainer.
        published: data set, category, protocol and method of published figures, if there are any.
        weights_sha256: of the backbone's file; of its tensors, if they are timm's.
        files_sha256: of the images; see :func:`~anomalib_spd.data.ready.fingerprint`.
        architecture: of the backbone.
        accelerator: as Lightning names it.
        threads: of torch on the CPU.
    """

    cell: Cell
    model: Config
    data: Config
    trainer: Config = field(default_factory=dict[str, Any])
    published: Config | None = None
    weights_sha256: str | None = None
    files_sha256: str | None = None
    architecture: str | None = None
    accelerator: str = "auto"
    threads: int = 1

    @property
    def backbone(self) -> str | None:
        """Name of the backbone; None where the detector takes none."""
        name = self.model["init_args"].get(backbone_parameter(self.model["class_path"]))
        return None if name is None else str(name)

    @property
    def origin(self) -> dict[str, Any]:
        """The part of the record that is known before the run, and identifies the measurement."""
        return {
            "backbone": {
                "name": self.backbone,
                "architecture": self.architecture,
                "weights_sha256": self.weights_sha256,
            },
            "files_sha256": self.files_sha256,
            "config": {"model": self.model, "data": self.data, **({"trainer": self.trainer} if self.trainer else {})},
            "published": self.published,
        }


def run(plan: Plan, shared: SharedFeatures | None = None) -> tuple[dict[str, Any], Scores]:
    """Measure one cell by anomalib's ``Engine``.

    Args:
        plan: of the cell.
        shared: features that other cells use too; None lets the detector compute its own.

    Returns:
        The record, without the cell, and the scores.

    Raises:
        ValueError: the images are not those of the plan.
    """
    torch.set_num_threads(plan.threads)
    _reset_peak_memory()
    start = time.perf_counter()
    data = ready_data(plan.data)
    if plan.files_sha256 not in (None, fingerprint(data)):
        raise ValueError(
            "The images are others than those that the grid began with: they have changed since, or the data module draws "
            "them in a way of its own. Start the grid again, or give the data module a seed."
        )
    seed_everything(plan.cell.seed, workers=True, verbose=False)
    # raw scores: anomalib's normalization clips them, which makes ties
    takes = inspect.signature(cast(type, locate(plan.model["class_path"]))).parameters
    stock = {name: False for name in ("post_processor", "visualizer", "evaluator") if name in takes}
    model = build(AnomalibModule, {**plan.model, "init_args": {**plan.model["init_args"], **stock}})
    model.evaluator = evaluator(model, data)
    is_shared = shared is not None and shared.serve(model)
    _saved_seconds(shared)
    recorder = ScoreRecorder()
    with tempfile.TemporaryDirectory() as folder, naming_unreadable(data):
        # bare-bones: no checkpoint of the memory bank, no log. Validation would only fit the post-processor; a stock run
        # has equal figures with --trainer.limit_val_batches 0, as validation draws a random number
        engine = Engine(
            callbacks=[recorder],
            default_root_dir=folder,
            accelerator=plan.accelerator,
            barebones=True,
            limit_val_batches=0,
            **plan.trainer,
        )
        started = time.perf_counter()
        engine.fit(model, datamodule=data)
        fit = time.perf_counter() - started + (saved_in_fit := _saved_seconds(shared))
        engine.test(model, datamodule=data, verbose=False)
        inference = recorder.seconds + (saved_in_test := _saved_seconds(shared))
        scores = recorder.scores()
        point = operating_point(model, data, scores)
    # as if the cell had run alone, like its parts
    total = time.perf_counter() - start + saved_in_fit + saved_in_test
    seconds = {"fit": fit, "inference": inference, "total": total}
    record = describe(plan, engine.trainer, data, recorder, scores, seconds)
    record |= {"operating_point": point} if point else {}
    return {**record, "features_shared": is_shared, "peak_memory_bytes": _peak_memory()}, scores


def ready_data(config: Config) -> AnomalibDataModule:
    """Return the data module of a configuration, set up: the same images in every call.

    Args:
        config: ``class_path`` and ``init_args``.

    Raises:
        ValueError: see :func:`~anomalib_spd.benchmark.build.build`; data modules raise their own errors.
    """
    data: AnomalibDataModule = build(AnomalibDataModule, config)
    set_up(data, SPLIT_SEED)
    return data


def evaluator(model: AnomalibModule, data: AnomalibDataModule) -> Evaluator:
    """Return the metrics of a cell: of images, and of pixels if there are masks and the model has anomaly maps.

    Args:
        model: any of anomalib's; one with a false ``localizes`` has no anomaly maps.
        data: the data module, set up.
    """
    sizes = _input_sizes(model)
    # exact where the model's input size is not known
    size = sizes["crop"] or sizes["image_size"] or (0, 0)
    binned = len(data.test_data) * math.prod(size) > EXACT_LIMIT
    localizes = has_masks(data) and getattr(model, "localizes", True)
    metrics = [
        metric.build(binned and metric.level == "pixel") for metric in METRICS if metric.level == "image" or localizes
    ]
    return Evaluator(test_metrics=metrics)


def describe(
    plan: Plan,
    trainer: Trainer,
    data: AnomalibDataModule,
    recorder: ScoreRecorder,
    scores: Scores,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Return the record of a cell that was measured, without the cell.

    Args:
        plan: of the cell.
        trainer: after its test stage.
        data: the data module.
        recorder: one of the trainer's callbacks.
        scores: that it recorded.
        seconds: durations, by name.
    """
    logged = trainer.callback_metrics
    undefined = scores.undefined  # anomalib's AU-PRO and F1-max are then 0 or 1, ours NaN
    return {
        "status": "done",
        "error": None,
        "metrics": {
            metric.name: logged[metric.name].item()
            for metric in METRICS
            if metric.name in logged and metric.level not in undefined
        },
        **({"undefined": undefined} if undefined else {}),
        "seconds": seconds,
        "sizes": _sizes(trainer.lightning_module, data, recorder),
        # the training images of a k-shot draw
        **({"drawn": drawn} if (drawn := getattr(data, "drawn", [])) else {}),
        **plan.origin,
        **_run_metadata(plan, str(trainer.strategy.root_device)),
    }


def failure(plan: Plan, error: BaseException) -> dict[str, Any]:
    """Return the record of a cell that could not be measured.

    Args:
        plan: of the cell.
        error: why.
    """
    return {
        "status": "failed",
        "error": {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        },
        "metrics": {},
        "seconds": {},
        **plan.origin,
        **_run_metadata(plan, plan.accelerator),
    }


def weights(backbone: str | None) -> tuple[str | None, str | None]:
    """Return SHA-256 and architecture of a backbone; None if there is none, or it cannot be loaded.

    Args:
        backbone: name in the registry or in timm.
    """
    if backbone is None:
        return None, None
    if backbone in (registered := available()):
        return registered[backbone].provenance.sha256, registered[backbone].architecture
    with suppress(Exception):
        model: Any = timm.create_model(backbone, pretrained=True)
        parts = ((name, tensor.contiguous().numpy().tobytes()) for name, tensor in sorted(model.state_dict().items()))
        return digest(*chain.from_iterable(parts)), model.pretrained_cfg.get("architecture")
    return None, None


def _saved_seconds(shared: SharedFeatures | None) -> float:
    """Return the seconds that shared features have saved: with them, timings are those of a cell that runs alone."""
    return shared.take_seconds_saved() if shared else 0.0


def _sizes(model: Any, data: AnomalibDataModule, recorder: ScoreRecorder) -> dict[str, Any]:
    labels = data.test_data.samples.label_index
    return {
        "train_images": len(data.train_data),
        "train_anomalous": int((data.train_data.samples.label_index == 1).sum()),
        "test_normal": int((labels == 0).sum()),
        "test_anomalous": int((labels == 1).sum()),
        **_input_sizes(model),
        "map": _pair(recorder.map_size),
        "coreset_sampling_ratio": getattr(model, "coreset_sampling_ratio", None),
    }


def _input_sizes(model: Any) -> dict[str, list[int] | None]:
    transforms = getattr(getattr(model.pre_processor, "transform", None), "transforms", [])
    sizes = {type(transform).__name__: getattr(transform, "size", None) for transform in transforms}
    return {"image_size": _pair(sizes.get("Resize")), "crop": _pair(sizes.get("CenterCrop"))}


def _pair(size: Any) -> list[int] | None:
    return None if size is None else [int(length) for length in size]


def _run_metadata(plan: Plan, device: str) -> dict[str, Any]:
    return {
        "versions": {
            "python": platform.python_version(),
            "anomalib_spd": __version__,
            **{name: version(name) for name in PACKAGES},
        },
        "threads": plan.threads,
        "process": os.getpid(),
        "device": device,
    }


def _reset_peak_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    # resets the peak resident size on Linux; elsewhere the peak is that of all cells of the process
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> int | None:
    """Return bytes: on the GPU if there is one, else resident, shared features included."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    with suppress(OSError, IndexError):
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else peak * 1024
    return None
