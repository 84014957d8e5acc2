"""How much can an encoder give in a 2-class grid? Measures one that has learnt the very training images, with their labels.

A U-Net is trained as the grid has it, and its decoder thrown away; then another is trained, from that encoder. No pre-training on
other images can be expected to prepare an encoder better, so what this one has ahead of the backbone says how much is to be had; it proves
no bound. Run from the project's root, with the extra ``[twoclass]`` installed; interrupted, the same command goes on behind the last category::

    python scripts/bound_2cls.py configs/benchmark/forms_2cls_highshot.yaml --steps 100 300

The encoder is always that of the longest training.
"""

import argparse
import json
import tempfile
from dataclasses import fields
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import yaml
from anomalib.engine import Engine
from lightning.pytorch import seed_everything
from torch import Tensor

from anomalib_spd.benchmark.cell import evaluator
from anomalib_spd.benchmark.grid import Grid, build_data, build_model
from anomalib_spd.benchmark.results import Cell

FIGURE = "pixel_AUPR_step"
# another start of the decoder and another order of images than the U-Net's that the encoder comes from
OTHER_SEED = 100


def measure(
    grid: Grid, cell: Cell, steps: int, seed: int, encoder: dict[str, Tensor] | None = None
) -> tuple[float, dict[str, Tensor]]:
    """Train a cell's U-Net for some steps, from an encoder that is given; return its figure, and its own encoder."""
    data = build_data(grid.data_config(cell))
    config = grid.model_config(cell)
    stock = {"steps": steps, "post_processor": False, "visualizer": False, "evaluator": False}
    seed_everything(seed, workers=True, verbose=False)
    model: Any = build_model({**config, "init_args": {**config["init_args"], **stock}})
    if encoder is not None:
        model.model.network.encoder.load_state_dict(encoder)
    data.prepare_data()
    data.setup()
    model.evaluator = evaluator(model, data)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(default_root_dir=folder, barebones=True, limit_val_batches=0)
        engine.fit(model, datamodule=data)
        engine.test(model, datamodule=data, verbose=False)
    learnt = {name: tensor.clone() for name, tensor in model.model.network.encoder.state_dict().items()}
    return float(engine.trainer.callback_metrics[FIGURE]), learnt


def main(args: list[str] | None = None) -> None:
    """Measure what is missing, and print mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "grid", type=Path, help="2-class grid with two or more seeds; its first backbone and its U-Net are taken"
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[300], help="lengths of the trainings that are judged")
    parser.add_argument("--results", type=Path, default=Path("results/bound_2cls"), help="folder of what is on record")
    options = parser.parse_args(args)
    torch.set_num_threads(1)

    keys = {field.name for field in fields(Grid)}
    grid = Grid(**{key: value for key, value in yaml.safe_load(options.grid.read_text()).items() if key in keys})
    backbone, longest = next(iter(grid.backbones)), max(options.steps)
    record = options.results / f"{options.grid.stem}.json"
    options.results.mkdir(parents=True, exist_ok=True)
    figures: dict[str, float] = json.loads(record.read_text()) if record.exists() else {}
    for seed, category in product(grid.seeds, grid.categories):
        cell = Cell(backbone, "U-Net", category, seed)
        wanted = [f"{arm} {category} {steps} {seed}" for arm, steps in product(("backbone", "bound"), options.steps)]
        if all(name in figures for name in wanted):
            continue
        figure, encoder = measure(grid, cell, longest, seed)
        figures[f"backbone {category} {longest} {seed}"] = figure
        for steps in options.steps:
            if steps != longest:
                figures[f"backbone {category} {steps} {seed}"] = measure(grid, cell, steps, seed)[0]
            figures[f"bound {category} {steps} {seed}"] = measure(grid, cell, steps, seed + OTHER_SEED, encoder)[0]
        record.write_text(json.dumps(figures, indent=2) + "\n")
    for steps, category in product(options.steps, grid.categories):
        of = {
            arm: [figures[f"{arm} {category} {steps} {seed}"] for seed in grid.seeds] for arm in ("backbone", "bound")
        }
        shown = ", ".join(f"{arm} {mean(values):.3f} ± {stdev(values):.3f}" for arm, values in of.items())
        print(f"{category}, {steps} steps: {shown}, {mean(of['bound']) - mean(of['backbone']):+.3f}")


if __name__ == "__main__":
    main()
