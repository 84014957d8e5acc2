"""The speed of the transforms and of the saliency, beside the usual alternatives.

    python speed/augmentation.py            # as in docs/results/augmentation.md
    python speed/augmentation.py --compile  # with torch.compile as well

It runs on the GPU where there is one. Calls alternate, one of each a round, so that a busy machine slows all alike; medians
and ratios of medians are printed. `--clock cpu` counts the process's CPU time: on a busy machine, with `--threads 1`.
"""

import argparse
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial

import kornia
import kornia.augmentation as K
import timm
import torch
import torch.nn.functional as F
import torchvision
from pil_reference import cut_paste, cut_swap, cut_swap_per_image, per_image, smooth_blend
from sklearn.cluster import KMeans
from torch import Tensor

import anomalib_spd  # noqa: F401 - registers its classifier with timm
from anomalib_spd.augmentation import (
    RandomCrack,
    RandomCutPaste,
    RandomCutPasteScar,
    RandomCutSwap,
    RandomCutSwapScar,
    RandomSmoothBlend,
)
from anomalib_spd.saliency import EFFICIENTNET_LITE0_STRIDES, VGG16_POOLS, LayerCAM, kmeans_1d

Timed = dict[str, Callable[[], object]]
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}

#: operations that touch no data
NO_WORK = {"alias", "as_strided", "detach", "empty", "empty_strided", "lift_fresh", "view", "_unsafe_view"}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=256, help="side of the images, pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--compile", action="store_true", help="time the compiled transforms as well")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    images = torch.rand(arguments.batch, 3, arguments.size, arguments.size, device=device)
    maps = saliency_like(images)

    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    clock = CLOCKS[arguments.clock]
    print(f"{device} ({name}), {arguments.threads} of {os.cpu_count()} threads, {arguments.clock} time")
    print(f"torch {torch.__version__}, kornia {kornia.__version__}, torchvision {torchvision.__version__}")
    print(f"\nTransforms of {tuple(images.shape)} {images.dtype}, median of {arguments.rounds} rounds\n")
    transforms(images, maps, arguments.rounds, arguments.compile, clock)
    print("\nk-means with k = 4\n")
    clustering(maps, clock)
    print("\nLayerCAM of five layers, the class of the greatest logit\n")
    layer_cam(arguments.size, device, clock)


def saliency_like(images: Tensor) -> Tensor:
    """Return maps ``(B, 1, H, W)`` as LayerCAM makes them: few values, enlarged, from 0 to 1."""
    maps = torch.rand(len(images), 1, 16, 16, device=images.device) ** 3
    maps = F.interpolate(maps, size=images.shape[-2:], mode="bilinear")
    maps = maps - maps.amin((1, 2, 3), keepdim=True)
    return maps / maps.amax((1, 2, 3), keepdim=True)


def alternate(timed: Timed, rounds: int, device: torch.device, clock: Clock, warm_up: int = 3) -> dict[str, float]:
    """Return the median milliseconds of each call, one call of each a round."""

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    taken: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(warm_up + rounds):
        for name, call in timed.items():
            finish()
            start = clock()
            call()
            finish()
            if number >= warm_up:
                taken[name].append((clock() - start) * 1e3)
    return {name: statistics.median(values) for name, values in taken.items()}


def launches(call: Callable[[], object]) -> int:
    """Return the number of operations of a call that touch data: on a GPU, kernels."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return sum(
        not event.cpu_children and event.name.startswith("aten::") and event.name.removeprefix("aten::") not in NO_WORK
        for event in profile.events() or ()
    )


def transforms(images: Tensor, maps: Tensor, rounds: int, compiled: bool, clock: Clock) -> None:
    """Time the transforms, the most similar ones of Kornia, and per-image references."""
    ours = {
        "SmoothBlend": RandomSmoothBlend(),
        "CutPaste": RandomCutPaste(),
        "CutPasteScar": RandomCutPasteScar(),
        "CutSwap": RandomCutSwap(),
        "CutSwapScar": RandomCutSwapScar(),
        "Crack": RandomCrack(),
    }
    timed: Timed = {"x.clone()": images.clone}
    for name, transform in ours.items():
        timed[name] = partial(transform, images)
        if "CutSwap" in name:
            timed[f"{name}, given maps"] = partial(transform, images, saliency=maps)
        if compiled:
            fast = torch.compile(transform, fullgraph=True)
            timed[f"{name}, compiled"] = partial(fast, images)
            if "CutSwap" in name:
                timed[f"{name}, given maps, compiled"] = partial(fast, images, saliency=maps)
    labels = torch.zeros(len(images), device=images.device)
    cut_mix = K.RandomCutMixV2(p=1.0, data_keys=["input", "class"], use_correct_lambda=True)
    erasing, jitter = K.RandomErasing(p=1.0), K.ColorJitter(0.1, 0.1, 0.1, 0.1, p=1.0)
    timed["Kornia's RandomErasing"] = partial(erasing, images)
    timed["Kornia's RandomCutMixV2"] = partial(cut_mix, images, labels)
    timed["Kornia's ColorJitter"] = partial(jitter, images)
    taken = alternate(timed, rounds, images.device, clock)

    # few rounds, as the references are slow
    references: Timed = {
        "SmoothBlend": partial(per_image, images, smooth_blend),
        "CutPaste": partial(per_image, images, cut_paste),
        "CutSwap": partial(per_image, images, cut_swap),
        "CutSwap, given maps": partial(cut_swap_per_image, images, maps),
    }
    slow = alternate(references, max(rounds // 10, 3), images.device, clock, warm_up=1)
    header = f"{'':36}{'ms':>8} {'x erasing':>10} {'x CutMix':>9} {'launches':>9} {'PIL, ms':>8} {'x faster':>9}"
    print(header)
    for name, milliseconds in taken.items():
        ratios = [milliseconds / taken[f"Kornia's {each}"] for each in ("RandomErasing", "RandomCutMixV2")]
        line = f"{name:36}{milliseconds:8.2f} {ratios[0]:10.2f} {ratios[1]:9.2f} {launches(timed[name]):9}"
        reference = slow.get(name.removesuffix(", compiled"))
        print(line + (f" {reference:8.1f} {reference / milliseconds:9.1f}" if reference else ""))


def clustering(maps: Tensor, clock: Clock) -> None:
    """Time the batched k-means against scikit-learn's, which clusters maps one by one."""
    rows = maps.flatten(1).double().cpu().numpy()[:, :, None]
    some = rows[:4]
    taken = alternate(
        {
            "kmeans_1d": partial(kmeans_1d, maps, 4),
            "kmeans_1d, 256 levels": partial(kmeans_1d, maps, 4, levels=256),
        },
        10,
        maps.device,
        clock,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits: Timed = {"": lambda: [KMeans(4, n_init=10, random_state=0).fit(row) for row in some]}
        theirs = alternate(fits, 3, maps.device, clock, warm_up=0)[""]
    theirs *= len(rows) / len(some)
    print(f"{f'{tuple(maps.shape)}':36}{'ms':>8} {'x faster':>9}")
    for name, milliseconds in taken.items():
        print(f"{name:36}{milliseconds:8.1f} {theirs / milliseconds:9.0f}")
    print(f"{f'KMeans(n_init=10), from {len(some)} maps':36}{theirs:8.1f}")


def layer_cam(size: int, device: torch.device, clock: Clock) -> None:
    """Time all maps of a batch against one training step on it."""
    models = {
        "EfficientNet-Lite0": (timm.create_model("efficientnet_lite0_in1k", pretrained=True), 16),
        "VGG16": (torchvision.models.vgg16(weights=None), 4),
    }
    print(f"{'':36}{'ms':>8} {'x forward + backward':>21}")
    for name, (model, batch) in models.items():
        model = model.eval().to(device)
        images = torch.randn(batch, 3, size, size, device=device)
        cam = LayerCAM(model, VGG16_POOLS if name == "VGG16" else EFFICIENTNET_LITE0_STRIDES)

        def step(model: torch.nn.Module = model, images: Tensor = images) -> None:
            model.zero_grad(set_to_none=True)
            model(images).amax(1).sum().backward()

        taken = alternate({"step": step, "cam": partial(cam, images)}, 5, device, clock, warm_up=1)
        label = f"{name}, {batch} images"
        print(f"{label:36}{taken['cam']:8.0f} {taken['cam'] / taken['step']:21.2f}")


if __name__ == "__main__":
    main()
