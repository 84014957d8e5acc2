"""Chooses the balance of a detector's layers for each set, by the set's own good images (docs/experiments.md, section 33).

A quarter of the good training images is held out and has faint defects drawn on it, as an adaptation's: the balance that
finds them best is chosen. The test images then judge every balance, as in ``judge_backbones.py``, PatchCore 0.01::

    python scripts/choose_balance.py --data FOLDER --output results/balance.csv --backbones efficientnet_lite0_in1k
"""

import argparse
from functools import partial
from itertools import product
from pathlib import Path

import judge_backbones as judging
import numpy as np
import pandas as pd
import timm
import torch
from torch import Tensor

from anomalib_spd.backbones import layers
from anomalib_spd.backbones.layer_reader import LayerReader
from anomalib_spd.data.faint_defects import draw_faint_defects
from anomalib_spd.files import write_text

BALANCES = ("rms", "var", "noise", "whitened")
RATIO = 0.01
#: share of the covariance in what a mild whitening divides by; the rest is white
WHITENING = 0.5


def main() -> None:
    """Measure each balance on held-out and on test images, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets, in VisA's layout")
    parser.add_argument("--backbones", nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True, help="CSV file")
    parser.add_argument("--sets", nargs="+", default=list(judging.SETS))
    options = parser.parse_args()
    rows = []
    for name in options.sets:
        data = judging.read(options.data / name)
        own = held_out(data.train)
        for backbone, (images, judged) in product(options.backbones, {"held out": own, "test": data}.items()):
            for balance, (image, pixel) in judge(backbone, judged).items():
                row = {"set": name, "backbone": backbone, "images": images, "balance": balance}
                rows.append(row | {"image_AUROC": image, "pixel_AUPR_step": pixel})
                print(row, f"{image:.3f} {pixel:.3f}", flush=True)
    write_text(options.output, pd.DataFrame(rows).round(4).to_csv(index=False))


def held_out(train: Tensor) -> judging.Set:
    """Return three quarters of good images, and the others as they are and with faint defects."""
    kept, others = train.tensor_split([len(train) - len(train) // 4])
    defective, masks = draw_faint_defects(others, min(120, 8 * len(others)), seed=0)
    nothing = torch.zeros(len(others), *masks.shape[-2:], dtype=torch.bool)
    labels = torch.arange(len(others) + len(defective)) >= len(others)
    return judging.Set(kept, torch.cat([others, defective]), labels, torch.cat([nothing, masks[:, 0] > 0]))


@torch.inference_mode()
def judge(backbone: str, data: judging.Set) -> dict[str, tuple[float, float]]:
    """Return image AU-ROC and pixel AU-PR of each balance, means of the coresets."""
    network, read_layers = timm.create_model(backbone, pretrained=True).eval(), LayerReader(backbone, layers(backbone))
    train, test = (judging.embed(partial(read_layers, network), images) for images in (data.train, data.test))
    found = {}
    for balance in BALANCES:
        balanced = [balance_layer(balance, *of_layer) for of_layer in zip(train, test, strict=True)]
        bank, queries = (torch.cat(maps, dim=1) for maps in zip(*balanced, strict=True))
        image, pixel, _ = np.mean(
            [np.stack(each)[:, 0] for each in judging.predicted(bank, queries, data, RATIO)], axis=0
        )
        found[balance] = (float(image), float(pixel))
    return found


def balance_layer(balance: str, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Return a layer's maps ``(N, C, H, W)`` of both in a balance, which is measured on the first."""
    if balance in judging.BALANCES:
        size = judging.scale(train, balance)
        return train / size, test / size
    if balance == "noise":
        size = noise(train)
        return train / size, test / size
    channels = train.shape[1]
    covariance = torch.cov(train.transpose(0, 1).flatten(1))
    white = torch.eye(channels) * covariance.trace() / channels
    values, vectors = torch.linalg.eigh(WHITENING * covariance + (1 - WHITENING) * white)
    matrix = vectors @ torch.diag(values.rsqrt()) @ vectors.T / channels**0.5
    return torch.einsum("dc,nchw->ndhw", matrix, train), torch.einsum("dc,nchw->ndhw", matrix, test)


def noise(maps: Tensor) -> Tensor:
    """Return the root mean square distance of locations to the nearest ones of the other half of the images."""
    generator = torch.Generator().manual_seed(0)
    halves = [each.permute(0, 2, 3, 1).flatten(0, 2) for each in maps.tensor_split([len(maps) // 2])]
    queries, memory = (each[torch.randperm(len(each), generator=generator)[:8000]] for each in halves)
    return torch.cdist(queries, memory).amin(dim=1).square().mean().sqrt()


if __name__ == "__main__":
    main()
