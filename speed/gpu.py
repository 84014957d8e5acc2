"""Checks the package on a GPU, in minutes and without a network: results equal to the CPU's, precisions, compilation, speed.

    python speed/gpu.py > docs/results/gpu.md
    python speed/gpu.py --device cpu --size 64 --batch 2   # without a GPU: that the script runs

It prints Markdown. The exit status is 1 where a result is not within its tolerance, or a training ends in weights that are not finite.
"""

import argparse
import logging
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import kornia.augmentation as K
import numpy as np
import timm
import torch
import torch.nn.functional as F
from kornia.augmentation import AugmentationSequential
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import anomalib_spd
from anomalib_spd.augmentation import (
    RandomColorJitter,
    RandomCrack,
    RandomCutPaste,
    RandomCutPasteScar,
    RandomCutSwap,
    RandomCutSwapScar,
    RandomSmoothBlend,
)
from anomalib_spd.data.sample.datamodule import normal_image
from anomalib_spd.detectors import FastPatchcore
from anomalib_spd.finetuning import PatchClassification
from anomalib_spd.local import CategoryAdaptation, CrossImageSPD, DenseSPD
from anomalib_spd.pretraining import MoCoSPD, SimCLRSPD, SimSiamSPD, SupervisedSPD
from anomalib_spd.saliency import EFFICIENTNET_LITE0_STRIDES, LayerCAM

BACKBONE = "efficientnet_lite0_in1k"
LAYERS = ["blocks.2", "blocks.4"]
TRANSFORMS: dict[str, Callable[[], Any]] = {
    "RandomCutPaste": partial(RandomCutPaste, p=1.0),
    "RandomCutPasteScar": partial(RandomCutPasteScar, p=1.0),
    "RandomCutSwap": partial(RandomCutSwap, p=1.0),
    "RandomCutSwapScar": partial(RandomCutSwapScar, p=1.0),
    "RandomSmoothBlend": partial(RandomSmoothBlend, p=1.0),
    "RandomCrack": partial(RandomCrack, p=1.0),
}
KORNIAS: dict[str, Callable[[], Any]] = {
    "Kornia's RandomErasing": partial(K.RandomErasing, p=1.0),
    "Kornia's ColorJitter": partial(K.ColorJitter, 0.1, 0.1, 0.1, 0.1, p=1.0),
    "ours, RandomColorJitter": partial(RandomColorJitter, 0.1, 0.1, 0.1, 0.1, p=1.0),
}
METHODS: dict[str, Callable[..., Any]] = {
    "supervised SPD": partial(SupervisedSPD, num_classes=3),
    "SimSiam SPD": SimSiamSPD,
    "SimCLR SPD": partial(SimCLRSPD, warmup_epochs=0),
    "MoCo SPD": partial(MoCoSPD, queue_size=64),
    "dense SPD": DenseSPD,
    "cross-image SPD": CrossImageSPD,
    "CutSwap": partial(PatchClassification, frozen_steps=0),
    "category adaptation": CategoryAdaptation,
}


class Table:
    """A Markdown table that is printed row by row; remembers whether all was well."""

    well = True

    def __init__(self, title: str, *columns: str) -> None:
        print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)

    def row(self, *cells: object, well: bool = True) -> None:
        """Print a row."""
        Table.well &= well
        print(f"| {' | '.join(map(str, cells))} |{'' if well else ' **not well**'}", flush=True)

    def difference(self, name: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
        """Print the largest difference to what is expected, as a share of its largest value."""
        largest = float((found.cpu() - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
        self.row(name, f"{largest:.1e}", f"{tolerance:.0e}", well=largest <= tolerance)


def main() -> int:
    """Print all tables; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=256, help="height and width of images, pixels")
    parser.add_argument("--rounds", type=int, default=20, help="of everything that is timed")
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16-mixed", "16-mixed"])
    parser.add_argument(
        "--no-compile", action="store_true", help="leave out torch.compile, which takes minutes on a CPU"
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU"
    print(f"# Checks on {name}\n")
    print(
        f"PyTorch {torch.__version__}, anomalib_spd {anomalib_spd.__version__}, images {options.batch} x 3 x {options.size}²: `speed/gpu.py`"
    )
    # the difference of CPU and GPU is to be that of rounding
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    images = bricks(options.batch, options.size)
    compare_transforms(images, device)
    compare_layer_cam(images, device)
    if not options.no_compile:
        compile_transforms(images, device)
    train(images, options, device)
    detect(images, options, device)
    time_transforms(images, options, device)
    print(f"\n{'All is within its tolerance.' if Table.well else '**Not all is within its tolerance.**'}")
    return 0 if Table.well else 1


def bricks(number: int, size: int) -> Tensor:
    """Return images ``(number, 3, size, size)`` in ``[0, 1]`` of the embedded sample."""
    drawn = [np.asarray(normal_image("brick", "train", f"{each:03d}")) for each in range(number)]
    images = torch.from_numpy(np.stack(drawn)).movedim(-1, 1).float() / 255
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def compare_transforms(images: Tensor, device: torch.device) -> None:
    """Apply each transform with the same parameters on both devices, to images, masks and saliency maps."""
    table = Table("Transforms: the device beside the CPU", "transform, what", "largest difference", "tolerance")
    maps = torch.rand_like(images[:, :1])
    for name, make in TRANSFORMS.items():
        augment = AugmentationSequential(make(), data_keys=["input", "mask", "mask"])
        inputs = images, maps, torch.zeros_like(maps)
        expected = augment(*inputs)
        found = augment(*(each.to(device) for each in inputs), params=augment._params)
        for what, one, other in zip(("images", "saliency", "mask"), found, expected, strict=True):
            table.difference(f"{name}, {what}", one, other, 1e-5)


def compare_layer_cam(images: Tensor, device: torch.device) -> None:
    """Compare the maps of both devices; in half precision a map may differ where it is flat."""
    table = Table("LayerCAM: the device beside the CPU", "precision", "largest difference", "tolerance")
    classifier = timm.create_model(BACKBONE, pretrained=True).eval()
    few = images[:8]
    expected = LayerCAM(classifier, EFFICIENTNET_LITE0_STRIDES)(few)
    on_device = LayerCAM(classifier.to(device), EFFICIENTNET_LITE0_STRIDES)
    table.difference("float32", on_device(few.to(device)), expected, 1e-2)
    with torch.autocast(device.type, torch.bfloat16):
        under = on_device(few.to(device)).cpu()
    mean = float((under - expected).abs().mean())
    table.row("bfloat16, mean", f"{mean:.1e}", "1e-01", well=mean < 0.1)


def compile_transforms(images: Tensor, device: torch.device) -> None:
    """Compare each compiled transform with itself, by the same parameters."""
    table = Table("torch.compile", "transform", "largest difference", "tolerance")
    inputs = images.to(device)
    for name, make in TRANSFORMS.items():
        transform = make()
        params = transform.forward_parameters(inputs.shape)
        table.difference(
            name, torch.compile(transform)(inputs, params=params), transform(inputs, params=params).cpu(), 1e-5
        )


def train(images: Tensor, options: argparse.Namespace, device: torch.device) -> None:
    """Train each method for two steps, in each precision."""
    table = Table("Trainings: two steps each", "method", *options.precisions)
    pixels = (255 * images).to(torch.uint8)
    for name, method in METHODS.items():
        cells, well = [], True
        for precision in options.precisions:
            torch.manual_seed(0)
            sized = {} if name in ("CutSwap", "category adaptation") else {"image_size": options.size}
            model = method(backbone=BACKBONE, pretrained=True, **sized)
            with tempfile.TemporaryDirectory() as folder:
                trainer = Trainer(
                    max_steps=2,
                    accelerator="gpu" if device.type == "cuda" else "cpu",
                    devices=1,
                    precision=precision,
                    logger=False,
                    enable_checkpointing=False,
                    enable_progress_bar=False,
                    enable_model_summary=False,
                    default_root_dir=folder,
                )
                start = time.perf_counter()
                labels = torch.zeros(len(pixels), dtype=torch.int64)
                trainer.fit(model, DataLoader(TensorDataset(pixels, labels), batch_size=len(pixels)))
            finite = all(bool(each.isfinite().all()) for each in model.encoder.parameters())
            well &= finite
            cells.append(f"{time.perf_counter() - start:.1f} s" if finite else "not finite")
        table.row(name, *cells, well=well)


@torch.inference_mode()
def detect(images: Tensor, options: argparse.Namespace, device: torch.device) -> None:
    """Fit PatchCore on both devices and compare what it predicts; the memory bank is the CPU's."""
    table = Table("PatchCore: the device beside the CPU", "what", "largest difference", "tolerance")
    on_cpu = FastPatchcore(backbone=BACKBONE, layers=LAYERS, coreset_sampling_ratio=0.1)
    on_device = FastPatchcore(backbone=BACKBONE, layers=LAYERS, coreset_sampling_ratio=0.1).to(device)
    seconds, embeddings, radii = {}, [], []
    for name, detector, inputs in (("CPU", on_cpu, images), ("device", on_device, images.to(device))):
        seed_everything(0, verbose=False)  # NumPy draws the projection, PyTorch the first point
        start = time.perf_counter()
        detector.model.train()(inputs)
        embeddings.append(torch.vstack(detector.model.embedding_store))
        detector.fit()
        seconds[name] = time.perf_counter() - start
        radii.append(torch.cdist(embeddings[-1], detector.model.memory_bank).amin(dim=1).amax()[None].cpu())
    table.difference("embeddings", embeddings[1], embeddings[0], 1e-3)
    # a GPU draws another first point: the banks differ, and neither is to leave more uncovered (draws differ by up to 6 %)
    table.difference("distance of the farthest embedding to the bank", radii[1], radii[0], 0.2)
    on_device.model.memory_bank = on_cpu.model.memory_bank.to(device)
    ours, reference = on_device.eval().model(images[:8].to(device)), on_cpu.eval().model(images[:8])
    for what in ("pred_score", "anomaly_map"):
        table.difference(what, getattr(ours, what), getattr(reference, what), 1e-3)
    print(f"\nFit, features and coreset: {seconds['CPU']:.2f} s on the CPU, {seconds['device']:.2f} s on the device.")
    predict = Table("PatchCore: prediction", "batch", "images/s")
    for batch in (1, min(8, options.batch)):
        taken = timed(partial(on_device.model, images[:batch].to(device)), options.rounds, device)
        predict.row(batch, f"{batch / taken:.0f}")


def time_transforms(images: Tensor, options: argparse.Namespace, device: torch.device) -> None:
    """Time the transforms beside Kornia's own."""
    table = Table("Throughput", "transform", "images/s")
    inputs = images.to(device)
    for name, make in {**TRANSFORMS, **KORNIAS}.items():
        table.row(name, f"{len(inputs) / timed(partial(make(), inputs), options.rounds, device):,.0f}")


def timed(call: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Return the median seconds of a call, after three that are not timed."""
    taken = []
    for _ in range(rounds + 3):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[3:])


if __name__ == "__main__":
    sys.exit(main())
