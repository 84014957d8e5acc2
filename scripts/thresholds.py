"""Judges thresholds that were chosen without a real defect: docs/experiments.md, section 24.

``python scripts/thresholds.py --data FOLDER`` scores each development set with each detector and seed once (resumed from
``--runs``), and writes ``results/thresholds.csv`` and ``results/thresholds.intervals.csv``.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from anomalib.data import AnomalibDataset, Folder
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from anomalib.engine import Engine
from anomalib.metrics import F1AdaptiveThreshold
from anomalib.models import Padim
from anomalib.models.components import AnomalibModule
from lightning.pytorch import seed_everything
from numpy.typing import NDArray
from torch import nn

from anomalib_spd.benchmark.features import SharedFeatures
from anomalib_spd.data import SyntheticValidation
from anomalib_spd.data.ready import set_up
from anomalib_spd.detectors import FastPatchcore
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from anomalib_spd.files import atomic_write, write_text
from anomalib_spd.report.bootstrap import image_weights

SETS = ("bottle", "screw", "kolektor", "cookie", "toy", "paper_bft", "paper_brg")
BACKBONE = "efficientnet_lite0_in1k"
LAYERS = {"PatchCore 0.01": ["blocks.2", "blocks.4"], "PaDiM": ["blocks.1", "blocks.2", "blocks.4"]}
ARMS = ("ours", "Perlin", "percentile", "oracle")
PAIRS = (("ours", "Perlin"), ("ours", "percentile"), ("ours", "oracle"), ("Perlin", "oracle"))
MEASURES = ("f1", "fpr", "fnr")
SEEDS = (0, 1, 2)
RESAMPLES = 2000

Floats = NDArray[np.float64]
#: set, detector, seed and arm
Key = tuple[str, str, int, str]


def main() -> None:
    """Score what is not scored yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets, in VisA's layout")
    parser.add_argument("--runs", type=Path, default=Path("runs/thresholds"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="of the draws and of the detector")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    resampled: dict[Key, tuple[Floats, ...]] = {}
    for name in options.sets:
        shared = SharedFeatures(BACKBONE, LAYERS["PaDiM"])
        for seed in options.seeds:
            for detector in LAYERS:
                file = options.runs / f"{name}.{detector}.{seed}.npz"
                if not file.exists():
                    scores = score(options.data / name, detector, seed, shared)
                    with atomic_write(file) as opened:
                        np.savez_compressed(opened, allow_pickle=False, **scores)
                run = dict(np.load(file))
                label = run["test_label"] > 0
                weights = np.concatenate([np.ones((1, len(label))), image_weights(label, RESAMPLES)])
                for arm in ARMS:
                    chosen = threshold(run, arm)
                    values = measures(run["test_score"] > chosen, label, weights)
                    resampled[name, detector, seed, arm] = values
                    point = {measure: value[0] for measure, value in zip(MEASURES, values, strict=True)}
                    rows.append(
                        {"set": name, "detector": detector, "seed": seed, "arm": arm, "threshold": chosen, **point}
                    )
                    print(
                        " ".join(f"{each:.3f}" if isinstance(each, float) else str(each) for each in rows[-1].values())
                    )
    write_text(options.results / "thresholds.csv", pd.DataFrame(rows).round(4).to_csv(index=False))
    table = pd.DataFrame(intervals(resampled, options.sets, options.seeds))
    write_text(options.results / "thresholds.intervals.csv", table.round(4).to_csv(index=False))
    print(table.round(3).to_string(index=False))


def score(folder: Path, detector: str, seed: int, shared: SharedFeatures) -> dict[str, NDArray[Any]]:
    """Train a detector, and score its validation sets, the held-out good images, and the test set."""
    data = validation(folder, seed)
    torch.manual_seed(seed)  # anomalib's generator draws when it is made
    perlin = validation(
        folder, seed, [PerlinAnomalyGenerator(probability=1.0, blend_factor=(0.01, 0.2))], saliency=None
    )
    seed_everything(seed, workers=True, verbose=False)
    size = BackbonePreProcessor(image_size=(256, 256))
    settings: dict[str, Any] = {"backbone": BACKBONE, "layers": LAYERS[detector], "pre_processor": size}
    stock: dict[str, Any] = {"post_processor": False, "visualizer": False, "evaluator": False}
    model: AnomalibModule = (
        Padim(n_features=100, **settings, **stock)
        if detector == "PaDiM"
        else FastPatchcore(coreset_sampling_ratio=0.01, num_neighbors=9, **settings, **stock)
    )
    shared.serve(model)
    with tempfile.TemporaryDirectory() as root:
        Engine(default_root_dir=root, accelerator="cpu", barebones=True, limit_val_batches=0).fit(
            model, datamodule=data
        )
    model.eval()
    found = {"ours": data.val_data, "Perlin": perlin.val_data, "test": data.test_data}
    scored = {f"{name}_score": score_images(model, part) for name, part in found.items()}
    labels = {f"{name}_label": part.samples.label_index.to_numpy() for name, part in found.items()}
    good = labels["ours_label"] == 0
    drawn_on = score_images(model, data.val_data.without_defects())
    return {**scored, **labels, "normal_score": np.concatenate([scored["ours_score"][good], drawn_on])}


def validation(folder: Path, seed: int, defects: list[nn.Module] | None = None, **kwargs: Any) -> SyntheticValidation:
    """Return the data module of a set, set up."""
    wrapped = Folder(
        name=folder.name,
        root=folder,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/bad",
        mask_dir="ground_truth/bad" if (folder / "ground_truth").is_dir() else None,
        val_split_mode="none",
        train_batch_size=8,
        num_workers=0,
    )
    data = SyntheticValidation(wrapped, defects, seed=seed, **kwargs)
    set_up(data, seed)
    return data


@torch.inference_mode()
def score_images(model: AnomalibModule, data: AnomalibDataset) -> Floats:
    """Return the raw score of each image, one at a time."""
    images: Any = (data[index].image for index in range(len(data)))
    return np.array([float(model(image[None]).pred_score) for image in images])


def threshold(run: dict[str, NDArray[Any]], arm: str) -> float:
    """Return the threshold that an arm chooses, as anomalib chooses and applies it: defective is what is above it."""
    if arm == "percentile":
        return float(np.percentile(run["normal_score"], 99))
    name = "test" if arm == "oracle" else arm
    scores, labels = run[f"{name}_score"], run[f"{name}_label"]
    if arm == "oracle":  # the best that there is, whatever anomalib does at the threshold itself
        each = np.concatenate([[-np.inf], np.sort(scores)])
        values = measures(scores[None] > each[:, None], labels > 0, np.ones((1, len(labels))))[0]
        return float(each[values.argmax()])
    metric: Any = F1AdaptiveThreshold(fields=["pred_score", "gt_label"])
    metric.update(SimpleNamespace(pred_score=torch.from_numpy(scores), gt_label=torch.from_numpy(labels)))
    return float(metric.compute())


def measures(predicted: NDArray[np.bool_], label: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Return F1, false positive rate and false negative rate; ``weights`` say how often each image counts."""
    hit = (weights * (predicted & label)).sum(-1)
    alarm = (weights * (predicted & ~label)).sum(-1)
    positive, negative = (weights * label).sum(-1), (weights * ~label).sum(-1)
    return 2 * hit / np.maximum(hit + alarm + positive, 1), alarm / negative, 1 - hit / positive


def intervals(
    resampled: dict[Key, tuple[Floats, ...]], sets: Sequence[str], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Return differences of arms with their 95 % intervals over test images and seeds, of each set and of their mean."""
    times = np.random.default_rng(1).multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), RESAMPLES)
    shares = np.concatenate([np.full((1, len(seeds)), 1 / len(seeds)), times / len(seeds)]).T
    rows = []
    for number, measure in enumerate(MEASURES):
        of = {
            (name, detector, arm): (
                shares * np.stack([resampled[name, detector, seed, arm][number] for seed in seeds])
            ).sum(0)
            for name in sets
            for detector in LAYERS
            for arm in ARMS
        }
        for first, second in [*((arm, None) for arm in ARMS), *PAIRS]:
            for part in ("mean", *sets):
                for detectors in (["both"], *([each] for each in LAYERS)) if part == "mean" else (["both"],):
                    used = list(LAYERS) if detectors == ["both"] else detectors
                    drawn = np.mean(
                        [
                            of[name, detector, first] - (of[name, detector, second] if second else 0)
                            for name in (sets if part == "mean" else [part])
                            for detector in used
                        ],
                        axis=0,
                    )
                    low, high = np.percentile(drawn[1:], (2.5, 97.5))
                    rows.append(
                        {
                            "measure": measure,
                            "a": first,
                            "b": second or "",
                            "set": part,
                            "detector": detectors[0],
                            "value": drawn[0],
                            "low": low,
                            "high": high,
                        }
                    )
    return rows


if __name__ == "__main__":
    main()
