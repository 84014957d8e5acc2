"""A synthetic folder of results in the format of a benchmark: random scores and drawn images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_spd.benchmark import results
from anomalib_spd.benchmark.results import FALSE_POSITIVE_RATES, Cell, Scores
from anomalib_spd.metrics.areas import aupro

GRID: dict[str, Any] = {
    "title": "Synthetic: SPD <against> base",
    "backbones": {"base": "efficientnet_lite0_in1k", "SPD": "efficientnet_lite0_spd"},
    "detectors": {
        "padim": {"class_path": "anomalib.models.Padim"},
        "patchcore_0.01": {"class_path": "anomalib.models.Patchcore", "init_args": {"coreset_sampling_ratio": 0.01}},
    },
    "data": {"class_path": "anomalib.data.MVTecAD"},
    "categories": {"bottle": None, "screw": None, "candle": None},
    "seeds": [0, 1],
}
#: one detector, category and seed, and two backbones
SMALL: dict[str, Any] = GRID | {
    "title": "Small",
    "detectors": {"patchcore_0.01": GRID["detectors"]["patchcore_0.01"]},
    "categories": {"bottle": None},
    "seeds": [0],
}
DATASETS = {"bottle": "mvtec", "screw": "mvtec", "candle": "visa"}
WITHOUT_MASKS = "screw"
FAILED = Cell("base", "padim", "candle", 1)
MISSING = Cell("SPD", "patchcore_0.01", "screw", 1)

NORMAL, ANOMALOUS = 14, 10
RESAMPLES = 100
RESIZED, CROP = 64, 56


def write_results(folder: Path, grid: dict[str, Any] = GRID) -> Path:
    """Write a folder of results in which one cell has failed, one is missing, and one category has no masks."""
    images = {category: _draw(folder / "images" / category) for category in grid["categories"]}
    folder.mkdir(exist_ok=True)
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    for b, backbone in enumerate(grid["backbones"]):
        for d, detector in enumerate(grid["detectors"]):
            for c, category in enumerate(grid["categories"]):
                for seed in grid["seeds"]:
                    cell = Cell(backbone, detector, category, seed)
                    if cell == FAILED:
                        results.write(cell.folder(folder), cell, _failure(grid, cell), None)
                    elif cell != MISSING:
                        rng = np.random.default_rng([b, d, c, seed])
                        strength = 1.0 + 0.5 * b - 0.3 * c + 0.2 * d
                        scores, metrics = _measure(*images[category], strength, rng, category != WITHOUT_MASKS)
                        results.write(cell.folder(folder), cell, _record(grid, cell, metrics), scores)
    return folder


def _draw(folder: Path) -> tuple[list[str], list[str], NDArray[np.bool_]]:
    """Draw images of an object, some with a spot; return their paths, those of the masks, and the cropped masks."""
    rng = np.random.default_rng(len(folder.name))
    folder.mkdir(parents=True)
    y, x = np.mgrid[:96, :128] / 96
    paths, mask_paths, masks = [], [], []
    for index in range(NORMAL + ANOMALOUS):
        tone = 0.25 + 0.5 * (np.hypot(y - 0.5, x - 0.66) < 0.42) + 0.03 * rng.standard_normal(y.shape)
        at_y, at_x = rng.uniform(0.35, 0.65), rng.uniform(0.5, 0.85)
        radius = 0.04 + 0.012 * (index - NORMAL)
        spot = (np.hypot(y - at_y, x - at_x) < radius) & (index >= NORMAL)
        pixels = np.stack([tone, tone * 0.9, np.where(spot, tone * 0.3, tone * 0.7)], axis=-1)
        paths.append(str(folder / f"{index:03}.png"))
        Image.fromarray((255 * pixels.clip(0, 1)).astype(np.uint8)).save(paths[-1])
        mask_paths.append(
            str(folder / f"{index:03}_mask.png") if index >= NORMAL and folder.name != WITHOUT_MASKS else ""
        )
        mask = Image.fromarray((255 * spot).astype(np.uint8))
        if mask_paths[-1]:
            mask.save(mask_paths[-1])
        edge = (RESIZED - CROP) // 2
        resized = np.asarray(mask.resize((RESIZED, RESIZED), Image.Resampling.NEAREST)) > 0
        masks.append(resized[edge:-edge, edge:-edge])
    return paths, mask_paths, np.stack(masks)


def _measure(
    paths: list[str],
    mask_paths: list[str],
    masks: NDArray[np.bool_],
    strength: float,
    rng: np.random.Generator,
    with_masks: bool,
) -> tuple[Scores, dict[str, float]]:
    noise = gaussian_filter(rng.standard_normal(masks.shape), (0, 3, 3)) * 6
    maps = 20 + noise + strength * gaussian_filter(masks.astype(float), (0, 2, 2)) * 2
    label = np.arange(len(masks)) >= NORMAL
    image_score = maps.max((1, 2)).astype(np.float32)
    edges = np.quantile(maps, np.linspace(0, 1, 200))
    positive, negative = (
        np.stack([np.histogram(each[chosen], edges)[0][::-1] for each, chosen in zip(maps, where, strict=True)])
        for where in (masks, ~masks)
    )
    bins = slice(None) if with_masks else slice(0)
    scores = Scores(
        image_path=np.array(paths),
        mask_path=np.array(mask_paths),
        image_label=label,
        image_score=image_score,
        anomaly_map=maps.astype(np.float16),
        false_positive_score=np.quantile(maps[~label], 1 - FALSE_POSITIVE_RATES).astype(np.float32),
        pixel_positive=positive[:, bins].astype(np.int32),
        pixel_negative=negative[:, bins].astype(np.int32),
        # one spot in an image
        region_overlap=(positive[:, bins] / positive.sum(1, keepdims=True).clip(1)).astype(np.float32),
    )
    metrics = _figures("image", label, image_score)
    if with_masks:
        metrics |= _figures("pixel", masks.ravel(), maps.ravel())
        counts = (torch.from_numpy(each.sum(0)) for each in (scores.region_overlap, scores.pixel_negative))
        metrics |= {"pixel_AUPR_visa": metrics["pixel_AUPR_step"] + 0.01, "pixel_AUPRO": aupro(*counts).item()}
    return scores, metrics


def _figures(level: str, truth: NDArray[np.bool_], score: NDArray[Any]) -> dict[str, float]:
    precision = float(average_precision_score(truth, score))
    return {
        f"{level}_AUROC": float(roc_auc_score(truth, score)),
        f"{level}_AUPR_step": precision,
        f"{level}_AUPR_trapezoid": precision - 0.002,
    }


def _record(grid: dict[str, Any], cell: Cell, metrics: dict[str, float]) -> dict[str, Any]:
    return {
        "status": "done",
        "error": None,
        "metrics": metrics,
        "seconds": {"fit": 12.0 + cell.seed, "inference": 4.8, "total": 18.0},
        "features_shared": False,
        "peak_memory_bytes": 3 * 2**29,
        "sizes": {
            "train_images": 40,
            "test_normal": NORMAL,
            "test_anomalous": ANOMALOUS,
            "image_size": [RESIZED, RESIZED],
            "crop": [CROP, CROP],
            "map": [CROP, CROP],
            "coreset_sampling_ratio": grid["detectors"][cell.detector]
            .get("init_args", {})
            .get("coreset_sampling_ratio"),
        },
        **_origin(grid, cell),
    }


def _failure(grid: dict[str, Any], cell: Cell) -> dict[str, Any]:
    error = {"type": "OutOfMemoryError", "message": "no memory for |a bank|\nof 10 GiB", "traceback": "Traceback ..."}
    return {"status": "failed", "error": error, "metrics": {}, "seconds": {}, **_origin(grid, cell)}


def _origin(grid: dict[str, Any], cell: Cell) -> dict[str, Any]:
    name = grid["backbones"][cell.backbone].replace("{seed}", str(cell.seed))
    return {
        "backbone": {
            "name": name,
            "architecture": "efficientnet_lite0",
            "weights_sha256": f"{name[-3:].encode().hex():0>64}",
        },
        "files_sha256": "0" * 64,
        "config": {"model": grid["detectors"][cell.detector], "data": {}},
        "published": {"dataset": DATASETS[cell.category], "category": cell.category},
        "versions": {"python": "3.13.1", "anomalib_spd": "0.1.0", "anomalib": "2.7.0", "torch": "2.14.0"},
        "threads": 2,
        "device": "cpu",
    }
