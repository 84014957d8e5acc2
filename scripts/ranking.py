"""Do drawn defects rank backbones, layers and coresets as real ones do? docs/experiments.md, section 27.

``python scripts/ranking.py --data FOLDER`` fits each detector to the good images of each development set, judges it by the
validation set with drawn defects and by the test set (resumed from ``--runs``), and writes ``results/ranking.csv``, one row
for each detector and set, and ``results/ranking.intervals.csv``: Spearman's rank correlation over the detectors.
"""

import argparse
import tempfile
import warnings
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from anomalib.data import AnomalibDataset
from anomalib.engine import Engine
from anomalib.models import Padim
from anomalib.models.components import AnomalibModule
from judge_backbones import METRICS, with_resamples
from lightning.pytorch import seed_everything
from numpy.typing import NDArray
from scipy.stats import ConstantInputWarning, spearmanr
from thresholds import SETS, validation

from anomalib_spd.benchmark.features import SharedFeatures
from anomalib_spd.benchmark.recorder import ScoreRecorder
from anomalib_spd.detectors import FastPatchcore
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from anomalib_spd.files import atomic_write, write_text
from anomalib_spd.report.bootstrap import interval

BACKBONES = (
    "efficientnet_lite0_in1k",
    "efficientnet_lite0_control",
    "efficientnet_lite0_spd",
    "efficientnet_lite0_spd.clean",
)
LAYERS = (("blocks.2", "blocks.4"), ("blocks.1", "blocks.2", "blocks.4"))
DETECTORS = ("PatchCore 0.01", "PatchCore 0.001", "PaDiM")
#: drawn defects, real ones
JUDGES = ("drawn", "real")
SIZE = 256
RESAMPLES = 500

Floats = NDArray[np.float64]


def main() -> None:
    """Judge what is not judged yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets, in VisA's layout")
    parser.add_argument("--runs", type=Path, default=Path("runs/ranking"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    found: dict[tuple[str, str, str], list[Floats]] = {}
    for name, backbone in product(options.sets, BACKBONES):
        shared = SharedFeatures(backbone, [*LAYERS[1]])
        for layers, detector in product(LAYERS, DETECTORS):
            file = options.runs / f"{name}.{backbone}.{len(layers)}.{detector}.npz"
            if not file.exists():
                judged = judge(options.data / name, backbone, layers, detector, shared)
                with atomic_write(file) as opened:
                    np.savez_compressed(opened, allow_pickle=False, **judged)
                print(file.stem, flush=True)
            values = dict(np.load(file))
            for judge_name, metric in product(JUDGES, METRICS):
                found.setdefault((name, judge_name, metric), []).append(values[f"{judge_name}.{metric}"])
            point = {key.replace(".", "_"): each[0] for key, each in values.items()}
            rows.append({"set": name, "backbone": backbone, "layers": " ".join(layers), "detector": detector, **point})
    write_text(options.results / "ranking.csv", pd.DataFrame(rows).round(4).to_csv(index=False))
    table = pd.DataFrame(correlations(found, options.sets))
    write_text(options.results / "ranking.intervals.csv", table.round(4).to_csv(index=False))
    print(table.round(3).to_string(index=False))


def judge(
    folder: Path, backbone: str, layers: tuple[str, ...], detector: str, shared: SharedFeatures
) -> dict[str, Floats]:
    """Fit a detector; return each metric ``(1 + resamples,)`` by judge and name, its value first; NaN where there are no masks."""
    data = validation(folder, 0)
    seed_everything(0, workers=True, verbose=False)
    settings: dict[str, Any] = {
        "backbone": backbone,
        "layers": [*layers],
        "pre_processor": BackbonePreProcessor(image_size=(SIZE, SIZE)),
        **{"post_processor": False, "visualizer": False, "evaluator": False},
    }
    model: AnomalibModule = (
        Padim(n_features=100, **settings)
        if detector == "PaDiM"
        else FastPatchcore(coreset_sampling_ratio=float(detector.split()[1]), num_neighbors=9, **settings)
    )
    shared.serve(model)
    with tempfile.TemporaryDirectory() as root:
        Engine(default_root_dir=root, accelerator="cpu", barebones=True, limit_val_batches=0).fit(
            model, datamodule=data
        )
    model.eval()
    masked = (folder / "ground_truth").is_dir()
    found = {"drawn": metrics(model, data.val_data, True), "real": metrics(model, data.test_data, masked)}
    return {f"{name}.{metric}": each for name, of in found.items() for metric, each in of.items()}


@torch.inference_mode()
def metrics(model: AnomalibModule, data: AnomalibDataset, masked: bool) -> dict[str, Floats]:
    """Return a detector's metrics on images, each with its values over resamples of the images."""
    recorder = ScoreRecorder()
    for index in range(len(data)):
        batch: Any = data.collate_fn([data[index]])
        predicted: Any = model(batch.image)
        mask = F.interpolate(batch.gt_mask.float().view(1, 1, *batch.gt_mask.shape[-2:]), SIZE) if masked else None
        recorder.record(
            SimpleNamespace(
                image_path=[str(index)],
                mask_path=None,
                gt_label=batch.gt_label,
                gt_mask=mask,
                pred_score=predicted.pred_score,
                anomaly_map=predicted.anomaly_map,
            )
        )
    return dict(zip(METRICS, with_resamples(recorder.scores(), RESAMPLES), strict=True))


def correlations(found: dict[tuple[str, str, str], list[Floats]], sets: list[str]) -> list[dict[str, Any]]:
    """Return Spearman's correlations of each set and their mean, with 95 % intervals over the images of both judges.

    A set where all detectors have one real value, or that has no masks, has none.
    """
    rows = []
    for metric in METRICS:
        of_sets = {name: spearman(*(np.stack(found[name, each, metric]) for each in JUDGES)) for name in sets}
        of_sets = {name: values for name, values in of_sets.items() if not np.isnan(values[0])}
        if of_sets:
            of_sets["mean"] = np.nanmean([*of_sets.values()], axis=0)
        rows += [
            {"metric": metric, "set": name, **interval(float(values[0]), values[1:])._asdict()}
            for name, values in of_sets.items()
        ]
    return rows


def spearman(a: Floats, b: Floats) -> Floats:
    """Return the rank correlation ``(R,)`` of values ``(detectors, R)``; NaN where one of them has no spread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        return np.array([spearmanr(one, other).statistic for one, other in zip(a.T, b.T, strict=True)])


if __name__ == "__main__":
    main()
