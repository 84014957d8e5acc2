"""One of several processes that fill a cache at once; a module of its own, as a spawned process imports it whole."""

from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from torch import Tensor, nn

from anomalib_spd.saliency import LayerCAM, SaliencyCache

LAYERS = ("1", "3")


def classifier(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def images(batch: int = 4) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def fill(folder: Path, barrier: Barrier, results: "Queue[tuple[int, float]]") -> None:
    """Write and read the same 40 images, a new cache each time, and report damaged reads and the sum of the maps."""
    import warnings

    cam = LayerCAM(classifier(), LAYERS)
    batch = images(40)
    total = 0.0
    barrier.wait(600)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(5):
            cache = SaliencyCache(folder, cam)
            # one by one, so that no process sees an image in another company
            maps = torch.cat([cache(image[None]) for image in batch])
            total = maps.double().sum().item()
            for path in folder.rglob("*.safetensors"):
                path.unlink(missing_ok=True)
    results.put((len(caught), total))
