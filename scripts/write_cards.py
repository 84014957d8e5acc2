"""Writes the model cards of the catalogue anew, with the figures that a grid measured with exactly these weights.

Figures of a grid are recorded for backbones that have seen none of its images. Run it from the project's root::

    python scripts/write_cards.py results/dev_shipped.csv
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_spd.backbones.card import card_text
from anomalib_spd.backbones.record import CARD_FILE, CATALOG_FOLDER, CONFIG_FILE, Backbone, read_config

# EvalResult takes one value of a metric for each data set, so figures are of one detector
DETECTOR = "PatchCore 0.01"
#: category of the grid -> data set and its title; the images are shrunk, so these are no figures of MVTec AD
DATA_SETS = {
    "bottle": ("mvtec-ad", "MVTec AD bottle, shrunk"),
    "screw": ("mvtec-ad", "MVTec AD screw, shrunk"),
    "kolektor": ("kolektorsdd", "KolektorSDD, shrunk"),
}
#: metric of the grid -> metric of the hub and its title
METRICS = {
    "image_AUROC": ("roc_auc", "image AU-ROC"),
    "image_AUPR_step": ("average_precision", "image AU-PR (step)"),
    "pixel_AUROC": ("roc_auc", "pixel AU-ROC"),
    "pixel_AUPR_step": ("average_precision", "pixel AU-PR (step)"),
}
#: what the backbones whose figures are no evidence have seen is in their `data`
SEEN = ("MVTec AD", "KolektorSDD")


def figures(cells: pd.DataFrame, backbone: Backbone) -> list[dict[str, Any]]:
    """Return the means over seeds of a backbone's cells, as arguments of ``EvalResult``.

    Args:
        cells: of a grid, one a row.
        backbone: its weights' checksum says which cells are its own.
    """
    if any(name in backbone.provenance.data for name in SEEN):
        return []
    own = cells[(cells["sha256"] == backbone.provenance.sha256) & (cells["detector"] == DETECTOR)]
    means = own.groupby("category", sort=False)[[*METRICS]].mean()
    return [
        {
            "task_type": "image-feature-extraction",
            "task_name": f"anomaly detection by {DETECTOR}, mean of {len(own[own['category'] == category])} seeds",
            "dataset_type": DATA_SETS[category][0],
            "dataset_name": DATA_SETS[category][1],
            "dataset_config": category,
            "metric_type": METRICS[metric][0],
            "metric_name": METRICS[metric][1],
            "metric_value": round(value, 4),
        }
        for category, row in means.iterrows()
        for metric, value in row.dropna().items()
    ]


def description(card: str, name: str) -> str:
    """Return the paragraphs between a card's title and its table of facts."""
    return card.split(f"\n# {name}\n", 1)[1].split("\n| | |\n", 1)[0].strip()


def main() -> None:
    """Write the figures into the records, and the cards from the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path, help="CSV of a grid, one cell a row")
    cells = pd.read_csv(parser.parse_args().cells)
    for folder in sorted(CATALOG_FOLDER.iterdir()):
        backbone, config = Backbone.read(folder), read_config(folder)
        provenance = replace(backbone.provenance, figures=figures(cells, backbone))
        config["anomalib_spd"]["provenance"] = provenance.to_json()
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        card = folder / CARD_FILE
        text = description(card.read_text(encoding="utf-8"), folder.name)
        card.write_text(card_text(Backbone.read(folder), folder.name, text), encoding="utf-8")


if __name__ == "__main__":
    main()
