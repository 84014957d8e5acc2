"""A grid that is measured in seconds: two small networks, two sets of a dozen small images."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from anomalib_spd.backbones import add, register
from anomalib_spd.benchmark.runners import Runner

LAYERS = ["blocks.1", "blocks.2"]


@contextmanager
def small_registry(folder: Path) -> Iterator[None]:
    """A registry with the backbones ``small_a`` and ``small_b``, random as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALIB_SPD_HOME", str(folder / "registry"))
        for seed, name in enumerate(["small_a", "small_b"]):
            add_to_registry(name, seed, folder)
        yield
    register()


def add_to_registry(name: str, seed: int, folder: Path) -> None:
    """Register a random network under a name."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save(timm.create_model("test_efficientnet").state_dict(), folder / f"{seed}.pth")
    add(name, folder / f"{seed}.pth", "test_efficientnet")


def draw_images(root: Path, category: str, masks: bool = True, seed: int = 0) -> None:
    """Draw gray noise in VisA's layout; anomalous images have a bright square, and a mask of it."""
    rng = np.random.default_rng(seed)
    base = root / "visa_pytorch" / category
    for folder, count in (("train/good", 6), ("test/good", 4), ("test/bad", 5)):
        (base / folder).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(90, 160, (64, 64, 3), dtype=np.uint8)
            mask = np.zeros((64, 64), dtype=np.uint8)
            if folder == "test/bad":
                y, x = rng.integers(8, 40, 2)
                mask[y : y + 14, x : x + 14] = 255
                pixels[mask > 0] = np.minimum(255, pixels[mask > 0].astype(int) + 40 + 10 * index)
                if masks:
                    (base / "ground_truth/bad").mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(base / "ground_truth/bad" / f"{index:03d}.png")
            Image.fromarray(pixels).save(base / folder / f"{index:03d}.JPG", quality=95)


def small_grid(root: Path, **changes: Any) -> dict[str, Any]:
    """Return the content of a grid's file; images of ``one`` and ``two`` must have been drawn."""
    pre_processor = {
        "class_path": "anomalib_spd.detectors.pre_processing.BackbonePreProcessor",
        "init_args": {"image_size": [80, 80], "center_crop_size": [64, 64]},
    }
    shared = {"layers": LAYERS, "pre_processor": pre_processor}
    two = root / "visa_pytorch" / "two"
    config = {
        "backbones": {"a": "small_a", "b": "small_b"},
        "detectors": {
            "PaDiM": {"class_path": "anomalib.models.Padim", "init_args": {**shared, "n_features": 10}},
            "PatchCore 0.1": {
                "class_path": "anomalib_spd.detectors.FastPatchcore",
                "init_args": {**shared, "coreset_sampling_ratio": 0.1},
            },
        },
        "data": {"class_path": "anomalib.data.Visa", "init_args": {"root": str(root), "num_workers": 0}},
        "categories": {
            "one": {"published": "mvtec"},
            # without masks
            "two": {
                "class_path": "anomalib.data.Folder",
                "init_args": {
                    "name": "two",
                    "root": str(two),
                    "normal_dir": "train/good",
                    "normal_test_dir": "test/good",
                    "abnormal_dir": "test/bad",
                    "val_split_mode": "same_as_test",
                    "num_workers": 0,
                },
            },
        },
        "seeds": [0, 1],
    }
    return {**config, **changes}


def write_config(path: Path, config: dict[str, Any]) -> Path:
    """Write a configuration to a file."""
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


class Inline(Runner):
    """A runner in this process, for tests of the grid itself."""

    workers = 1

    def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
