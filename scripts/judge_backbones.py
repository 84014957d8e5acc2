r"""Judges backbones on sets of real defects: PatchCore at two balances of the layers and two sizes of its memory bank.

The protocol of docs/experiments.md, section 26: layers at one root mean square (rms), or at one standard deviation about
their mean over locations (var), both measured on the good training images. An arm is a name and the backbones of its
trainings, in which ``{set}`` stands for the set; each is compared with those before it::

    python scripts/judge_backbones.py --data FOLDER --output results/judged.csv \
        --arms base=efficientnet_lite0_in1k SPD=my_spd_0,my_spd_1,my_spd_2

It writes the CSV, one row for each backbone, set, balance and ratio, and beside it ``NAME.intervals.csv``: the
differences of the arms, of each set and in the mean of all, with 95 % intervals over test images, trainings and coresets.
Images are squeezed to a square; with ``--keep_aspect`` they have as many pixels at their own height over width.
"""

import argparse
import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from lightning.pytorch import seed_everything
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomalib_spd.backbones import find, layers
from anomalib_spd.backbones.layer_reader import LayerReader
from anomalib_spd.benchmark.recorder import ScoreRecorder
from anomalib_spd.benchmark.results import Scores
from anomalib_spd.detectors import KCenterGreedy
from anomalib_spd.files import atomic_write, write_text
from anomalib_spd.metrics.areas import aupr_step, aupro
from anomalib_spd.report.bootstrap import bootstrap, interval

SETS = ("bottle", "screw", "kolektor", "cookie", "toy", "paper_bft", "paper_brg")
BALANCES = ("rms", "var")
RATIOS = (0.01, 0.001)
CORESETS = 5
RESAMPLES = 1000
METRICS = ("image_AUROC", "pixel_AUPR_step", "pixel_AUPRO")
#: height and width of the images, pixels; where they keep their aspect, the root of the product of the two
SIZE = 224
#: where they keep their aspect, height and width are multiples of it
STRIDE = 16
#: good images that the memory bank is chosen from
TRAIN = 150

Floats = NDArray[np.float64]


class Set(NamedTuple):
    """Images uint8 ``(N, 3, H, W)`` to train and to test on, with their labels ``(N,)`` and masks ``(N, H, W)`` if there are any."""

    train: Tensor
    test: Tensor
    labels: Tensor
    masks: Tensor | None


def main() -> None:
    """Judge what is not judged yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets, in VisA's layout")
    parser.add_argument("--arms", nargs="+", required=True, metavar="ARM=BACKBONE[,BACKBONE...]")
    parser.add_argument("--output", type=Path, required=True, help="CSV file")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--runs", type=Path, default=Path("runs/judged"), help="of backbones, so that a run goes on")
    parser.add_argument("--keep_aspect", action="store_true", help="of the images, instead of squares")
    options = parser.parse_args()
    arms = {name: backbones.split(",") for name, _, backbones in (arm.partition("=") for arm in options.arms)}
    all_backbones = dict.fromkeys(each for backbones in arms.values() for each in backbones)
    for backbone, name in product(all_backbones, options.sets):
        find(of_set(backbone, name))  # fails, with the nearest names, before the work starts
    judged: dict[tuple[str, str], Any] = {}
    for name in options.sets:
        data = None
        for template in all_backbones:
            backbone = of_set(template, name)
            seen = f"{name}.aspect" if options.keep_aspect else name
            file = options.runs / f"{backbone}.{find(backbone).provenance.sha256[:8]}.{seen}.npz"
            if not file.exists():
                data = data or read(options.data / name, options.keep_aspect)
                with atomic_write(file) as opened:
                    np.savez_compressed(opened, allow_pickle=False, **judge(backbone, data))
                print(f"{name}: {backbone}", flush=True)
            judged[template, name] = dict(np.load(file))
    rows = [
        {"arm": arm, "backbone": of_set(backbone, name)}
        | {"sha256": find(of_set(backbone, name)).provenance.sha256, "set": name}
        | {"balance": balance, "coreset_sampling_ratio": ratio}
        | {metric: judged[backbone, name][f"{balance}.{ratio}.{metric}"][:, 0].mean() for metric in METRICS}
        for arm, backbones in arms.items()
        for backbone, name, balance, ratio in product(backbones, options.sets, BALANCES, RATIOS)
    ]
    write_text(options.output, pd.DataFrame(rows).round(4).to_csv(index=False))
    table = pd.DataFrame(differences(judged, arms, options.sets))
    write_text(options.output.with_suffix(".intervals.csv"), table.round(4).to_csv(index=False))
    print(table.round(3).to_string(index=False))


def of_set(backbone: str, name: str) -> str:
    """Return the backbone of a set, such as one that was adapted to it."""
    return backbone.replace("{set}", name)


def read(folder: Path, keep_aspect: bool = False) -> Set:
    """Read a set; its images in their own aspect, which is the first one's."""
    train = sorted((folder / "train" / "good").iterdir())
    random.Random(0).shuffle(train)
    test = sorted(file for label in (folder / "test").iterdir() for file in label.iterdir())
    size = (SIZE, SIZE)
    if keep_aspect:
        with Image.open(train[0]) as opened:
            root = (opened.height / opened.width) ** 0.5
        size = (round(SIZE * root / STRIDE) * STRIDE, round(SIZE / root / STRIDE) * STRIDE)
    bad = [file.parent.name != "good" for file in test]
    truth = folder / "ground_truth"
    masks = None
    if truth.is_dir():
        files = [
            next((truth / file.parent.name).glob(f"{file.stem}*.png")) if label else None
            for file, label in zip(test, bad, strict=True)
        ]
        blank = torch.zeros(size, dtype=torch.bool)
        masks = torch.stack([blank if file is None else pixels(file, size, "L")[0] > 0 for file in files])
    return Set(
        torch.stack([pixels(file, size) for file in train[:TRAIN]]),
        torch.stack([pixels(file, size) for file in test]),
        torch.tensor(bad),
        masks,
    )


def pixels(file: Path, size: tuple[int, int], mode: str = "RGB") -> Tensor:
    """Return an image, uint8 ``(C, H, W)``, squeezed to a height and a width; of a mask, the nearest pixels."""
    height, width = size
    how = Image.Resampling.BILINEAR if mode == "RGB" else Image.Resampling.NEAREST
    with Image.open(file) as opened:
        image = opened.convert(mode).resize((width, height), how)
    return torch.from_numpy(np.array(image).reshape(height, width, -1)).permute(2, 0, 1)


@torch.inference_mode()
def judge(backbone: str, data: Set) -> dict[str, Floats]:
    """Return each metric ``(coresets, 1 + resamples)`` by balance, ratio and name: first its value, then the resampled ones."""
    network, read_layers = timm.create_model(backbone, pretrained=True).eval(), LayerReader(backbone, layers(backbone))
    train, test = (embed(partial(read_layers, network), images) for images in (data.train, data.test))
    found: dict[str, Floats] = {}
    for balance in BALANCES:
        scales = [scale(each, balance) for each in train]
        bank, queries = (
            torch.cat([each / size for each, size in zip(maps, scales, strict=True)], dim=1) for maps in (train, test)
        )
        for ratio in RATIOS:
            of_coresets = zip(*predicted(bank, queries, data, ratio), strict=True)
            for name, values in zip(METRICS, of_coresets, strict=True):
                found[f"{balance}.{ratio}.{name}"] = np.stack(values)
    return found


def embed(encode: Callable[[Tensor], list[Tensor]], images: Tensor) -> list[Tensor]:
    """Return each layer's maps ``(N, C, H, W)``, averaged over 3 x 3 locations as PatchCore's, all at the first layer's size."""
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    batches = []
    for batch in images.split(32):
        maps = [F.avg_pool2d(each, 3, 1, 1) for each in encode((batch.float() / 255 - mean) / std)]
        batches.append([F.interpolate(each, size=maps[0].shape[-2:], mode="bilinear") for each in maps])
    return [torch.cat(layer) for layer in zip(*batches, strict=True)]


def scale(maps: Tensor, balance: str) -> Tensor:
    """Return the root mean square, or the standard deviation, of the vectors of a layer ``(N, C, H, W)``."""
    if balance == "rms":
        return (maps.square().mean() * maps.shape[1]).sqrt()
    return maps.transpose(0, 1).flatten(1).var(dim=1).sum().sqrt()


def predicted(bank: Tensor, queries: Tensor, data: Set, ratio: float) -> Iterator[list[Floats]]:
    """Fit PatchCore and yield each metric for each coreset, NaN where there are no masks."""
    embedding, asked = (each.permute(0, 2, 3, 1).flatten(0, 2) for each in (bank, queries))
    for seed in range(CORESETS):
        seed_everything(seed, verbose=False)
        memory = KCenterGreedy(embedding, ratio).sample_coreset()
        nearest = torch.cat([torch.cdist(rows, memory).amin(dim=1) for rows in asked.split(8192)])
        distances = nearest.view(len(queries), 1, *queries.shape[-2:])
        maps = gaussian_blur2d(
            F.interpolate(distances, size=data.test.shape[-2:], mode="bilinear"), (33, 33), (4.0, 4.0)
        )
        recorder = ScoreRecorder()
        recorder.record(
            SimpleNamespace(
                image_path=[""] * len(queries),
                mask_path=None,
                gt_label=data.labels,
                gt_mask=None if data.masks is None else data.masks[:, ::2, ::2],
                pred_score=distances.flatten(1).amax(dim=1),
                anomaly_map=maps[:, 0, ::2, ::2],
            )
        )
        yield with_resamples(recorder.scores(), RESAMPLES)


def with_resamples(scores: Scores, resamples: int) -> list[Floats]:
    """Return each metric ``(1 + resamples,)``: the value first; NaN where there are no masks."""
    values = [roc_auc_score(scores.image_label, scores.image_score)]
    resampled = bootstrap(scores, "image", resamples)
    if scores.pixel_positive.size:
        pixels, negative, regions = (
            torch.as_tensor(each.sum(axis=0))
            for each in (scores.pixel_positive, scores.pixel_negative, scores.region_overlap)
        )
        values += [aupr_step(pixels, negative).item(), aupro(regions, negative).item()]
        resampled |= bootstrap(scores, "pixel", resamples)
    else:
        values += [np.nan, np.nan]
        resampled |= dict.fromkeys(METRICS[1:], np.full(resamples, np.nan))
    return [np.append(value, resampled[metric]) for metric, value in zip(METRICS, values, strict=True)]


def differences(judged: Any, arms: dict[str, list[str]], sets: list[str]) -> Iterator[dict[str, Any]]:
    """Yield each arm minus each before it, in the mean of the sets and of each; a resample draws images, trainings and coresets."""
    groups = {"mean": sets} | {name: [name] for name in sets}
    for (minus, arm), balance, ratio, metric, (group, members) in product(
        combinations(arms, 2), BALANCES, RATIOS, METRICS, groups.items()
    ):
        a, b = (drawn(judged, arms[each], members, f"{balance}.{ratio}.{metric}") for each in (arm, minus))
        if np.isnan(a[0]):  # a set without masks
            continue
        found = interval(float(a[0] - b[0]), a[1:] - b[1:])._asdict()
        yield {
            "arm": arm,
            "minus": minus,
            "set": group,
            "balance": balance,
            "coreset_sampling_ratio": ratio,
            "metric": metric,
            **found,
        }


def drawn(judged: Any, backbones: list[str], sets: list[str], key: str) -> Floats:
    """Return the mean over sets, trainings and coresets ``(1 + resamples,)``: first the value, then resamples."""
    generator = np.random.default_rng(1)  # coresets are drawn alike in all arms and sets
    coresets = generator.multinomial(CORESETS, np.full(CORESETS, 1 / CORESETS), RESAMPLES) / CORESETS
    count = len(backbones)
    trainings = generator.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    shares = trainings[:, :, None] * coresets[:, None, :]
    means = []
    for name in sets:
        values = np.stack([judged[backbone, name][key] for backbone in backbones])
        means.append(np.append(values[..., 0].mean(), np.einsum("rtc,tcr->r", shares, values[..., 1:])))
    found = [each for each in means if not np.isnan(each[0])]  # with masks
    return np.mean(found, axis=0) if found else np.full(1 + RESAMPLES, np.nan)


if __name__ == "__main__":
    main()
