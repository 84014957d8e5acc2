"""Measures exported detectors on the development sets and the embedded sample: docs/results/deploy.md.

``python scripts/deployments.py --data FOLDER`` trains PatchCore 0.01 once on each set, deploys it in every format (records are
kept, and known ones read, in ``--runs``), and writes ``results/deploy.csv``. Give it a machine that does nothing else.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from anomalib.data import AnomalibDataModule, Folder
from anomalib.engine import Engine
from lightning.pytorch import seed_everything

from anomalib_spd.data import Sample
from anomalib_spd.deploy.run import RECORD, deploy
from anomalib_spd.detectors import FastPatchcore
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from anomalib_spd.files import write_text

SETS = ("bottle", "screw", "kolektor", "cookie", "toy", "paper_bft", "paper_brg", "sample")
WITHOUT_MASKS = ("screw", "toy")
METRICS = ("image_AUROC", "pixel_AUPR_step")


def main() -> None:
    """Deploy what has no record yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets, in VisA's layout")
    parser.add_argument("--runs", type=Path, default=Path("runs/deploy"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.sets:
        folder = options.runs / name
        if not (folder / RECORD).exists():
            checkpoint = train(name, options.data, options.runs / f"{name}.ckpt")
            deploy(checkpoint, data_of(name, options.data), folder, model="Patchcore")
        rows += rows_of(name, json.loads((folder / RECORD).read_text()))
    table = pd.DataFrame(rows)
    write_text(options.results / "deploy.csv", table.to_csv(index=False, float_format="%.4g"))
    print(table.to_string(index=False))


def train(name: str, root: Path, checkpoint: Path) -> Path:
    """Train the detector of a set; return its checkpoint."""
    seed_everything(0, workers=True, verbose=False)
    model = FastPatchcore(
        backbone="efficientnet_lite0_spd",
        layers=["blocks.2", "blocks.4"],
        coreset_sampling_ratio=0.01,
        num_neighbors=9,
        pre_processor=BackbonePreProcessor(image_size=(256, 256)),
        evaluator=False,
        visualizer=False,
    )
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=checkpoint.parent)
    engine.fit(model, datamodule=data_of(name, root))
    engine.trainer.save_checkpoint(checkpoint)
    return checkpoint


def data_of(name: str, root: Path) -> AnomalibDataModule:
    """Return the data module of a set: its threshold is chosen by the test images."""
    if name == "sample":
        return Sample()
    return Folder(
        name=name,
        root=root / name,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/bad",
        mask_dir=None if name in WITHOUT_MASKS else "ground_truth/bad",
        val_split_mode="same_as_test",
        train_batch_size=8,
        num_workers=0,
    )


def rows_of(name: str, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each file of a record."""
    every = str(record["threads"])
    trained = record["trained"]
    rows = []
    for form, each in record["formats"].items():
        row = {
            "set": name,
            "format": form,
            "normal": record["data"]["normal"],
            "anomalous": record["data"]["anomalous"],
            "score_largest": each["score_difference"]["largest"],
            "score_mean": each["score_difference"]["mean"],
            "map_largest": each["map_difference"]["largest"],
            "map_mean": each["map_difference"]["mean"],
            "labels_flipped": each["labels_flipped"],
        }
        for metric in METRICS:
            difference = each["differences"].get(metric, {})
            row[f"trained_{metric}"] = trained["metrics"].get(metric)
            row |= {f"{metric}_{key}": difference.get(key) for key in ("value", "low", "high")}
        for threads in ("1", every):
            row[f"images_per_second_{threads}"] = each["images_per_second"][threads]
            row[f"trained_images_per_second_{threads}"] = trained["images_per_second"][threads]
        rows.append({**row, "bytes": each["bytes"], "peak_memory_bytes": each["peak_memory_bytes"]})
    return rows


if __name__ == "__main__":
    main()
