"""Draws the pictures of the site from the embedded sample alone: nothing of anybody else's images is shown.

``make docs`` calls :func:`draw_gallery`. ``python docs/gallery.py`` draws the README's picture anew, which is tracked.
"""

import contextlib
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import timm
import torch
import yaml
from anomalib.data import ImageItem
from anomalib.engine import Engine
from kornia.augmentation import AugmentationSequential, Normalize
from lightning.pytorch import seed_everything
from PIL import Image
from torch import Tensor

from anomalib_spd.augmentation import (
    RandomCrack,
    RandomCutPaste,
    RandomCutPasteScar,
    RandomCutSwap,
    RandomCutSwapScar,
    RandomSmoothBlend,
    moco_v2_view,
    simclr_view,
    simsiam_view,
    supervised_view,
    weak_view,
)
from anomalib_spd.cli.main import main
from anomalib_spd.config_files import load_config_files
from anomalib_spd.data import Sample
from anomalib_spd.data.sample.datamodule import CATEGORIES, defective_image, normal_image
from anomalib_spd.detectors import FastPatchcore
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from anomalib_spd.detectors.visualizer import CONTACT_GRID, PhotographVisualizer
from anomalib_spd.report.page import PAGE
from anomalib_spd.report.picture_table import write_picture_table
from anomalib_spd.saliency import EFFICIENTNET_LITE0_STRIDES, LayerCAM
from anomalib_spd.saliency.difference import difference_maps

HERO = Path(__file__).parent / "_static" / "hero.jpg"
SEED = 3
NEAR = 72  # height and width of close-ups, pixels
#: texture, defect and number of the images on which SPD's saliency is shown
SEEN = (("brick", "scratch", 0), ("brick", "hole", 1), ("grass", "stain", 0), ("gravel", "scratch", 1))
#: saliency of this level guides the swaps
STRIDE_8 = 2
TRANSFORMS = (
    RandomSmoothBlend(),
    RandomCutPaste(),
    RandomCutPasteScar(),
    RandomCutSwap(guide="saliency"),
    RandomCutSwapScar(guide="saliency"),
    RandomCrack(),
)
VIEWS = {
    "weak": weak_view,
    "supervised": supervised_view,
    "SimSiam": simsiam_view,
    "MoCo v2": moco_v2_view,
    "SimCLR": simclr_view,
}


def draw_gallery(folder: Path) -> None:
    """Draw all pictures of the gallery, and make a report of a small grid.

    Args:
        folder: new; it takes its name when all is there.
    """
    made = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    mpl.use("Agg")
    images = torch.stack([_to_tensor(normal_image(texture, "train", "000")) for texture in CATEGORIES])
    with _quiet():
        maps = _saliency(images)
        for transform in TRANSFORMS:
            _draw_transform(transform, images, maps, made / f"{type(transform).__name__}.jpg")
        _draw_views(images, made / "views.jpg")
        write_picture_table(
            {"image": images} | {f"stride {2 ** (n + 1)}": maps[:, [n]] for n in range(maps.shape[1])},
            made / "saliency.jpg",
        )
        _draw_seen(made / "saliency_spd.jpg")
        inspect(made)
        _make_report(made)
    made.rename(folder)


def draw_hero(path: Path) -> None:
    """Draw the README's picture: an image, its drawn defect, the anomaly map and the predicted mask.

    Args:
        path: of the picture.
    """
    mpl.use("Agg")
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        items = {Path(item.image_path or "").stem: item for item in inspect(Path(folder))}
        rows = [items[name] for name in ("scratch_000", "hole_001")]
        photographs = [_to_tensor(np.asarray(Image.open(item.image_path))) for item in rows]
    columns = {
        "photograph": photographs,
        "true outline": photographs,
        "anomaly map": [_colored(item) for item in rows],
        "predicted mask": [item.pred_mask.squeeze()[None].float() for item in rows],
    }
    write_picture_table(columns, path, {"true outline": [item.gt_mask for item in rows]})


def inspect(folder: Path, texture: str = "brick") -> list[ImageItem]:
    """Fit PatchCore to a category of the sample, and test it; pictures and contact sheet lie in the folder ``images``.

    Args:
        folder: for all that is written.
        texture: category of the sample.

    Returns:
        The test images with what is predicted for them.
    """
    seed_everything(0)
    data = Sample(texture, folder=folder / "sample")
    model = FastPatchcore(
        backbone="efficientnet_lite0_spd",
        layers=["blocks.2", "blocks.4"],
        coreset_sampling_ratio=0.01,
        pre_processor=BackbonePreProcessor(image_size=(256, 256)),
        visualizer=PhotographVisualizer(folder / "images", max_images=12),
    )
    engine = Engine(default_root_dir=folder / "results", logger=False, enable_progress_bar=False)
    engine.fit(model, datamodule=data)
    batches: Any = engine.predict(model, datamodule=data)
    (folder / "images" / CONTACT_GRID).replace(folder / CONTACT_GRID)
    for other in ("images", "results"):
        shutil.rmtree(folder / other)
    return [item for batch in batches for item in batch]


def _make_report(folder: Path) -> None:
    """Run a small grid on the sample and write its report, as a user would."""
    config = load_config_files(["benchmark/quick"])
    del config["detectors"]["PaDiM"], config["categories"]["grass"]
    config["data"]["init_args"]["folder"] = str(folder / "sample")
    grid = folder / "grid.yaml"
    grid.write_text(yaml.safe_dump(config, sort_keys=False))
    results, report = folder / "grid", folder / "report"
    if main(["benchmark", "--config", str(grid), "--results", str(results)]) or main(["report", str(results)]):
        raise RuntimeError("the grid of the gallery failed")
    report.mkdir()
    (results / "report" / PAGE).rename(report / PAGE)
    shutil.rmtree(results)
    shutil.rmtree(folder / "sample")


def _saliency(images: Tensor) -> Tensor:
    """Return LayerCAM maps ``(B, 5, H, W)`` of images ``(B, 3, H, W)``."""
    classifier = timm.create_model("efficientnet_lite0_in1k", pretrained=True)
    normalize = Normalize(classifier.pretrained_cfg["mean"], classifier.pretrained_cfg["std"])
    return LayerCAM(classifier, EFFICIENTNET_LITE0_STRIDES)(normalize(images))


def _draw_seen(path: Path) -> None:
    """Draw where a backbone sees that an image is not the one without the defect, before SPD and after."""
    pairs = [defective_image(*each) for each in SEEN]
    images = torch.stack([_to_tensor(image) for image, _ in pairs])
    normal = torch.stack([_to_tensor(normal_image(texture, "test", f"{kind}_{n:03d}")) for texture, kind, n in SEEN])
    columns = {"photograph": images, "true outline": images}
    for title, name in {"before": "efficientnet_lite0_in1k", "after SPD": "efficientnet_lite0_spd"}.items():
        encoder = timm.create_model(name, pretrained=True, num_classes=0)
        normalize = Normalize(encoder.pretrained_cfg["mean"], encoder.pretrained_cfg["std"])
        with torch.no_grad():
            references = encoder.eval()(normalize(normal))
        maps = difference_maps(encoder, normalize(images), references, ["blocks.2", "blocks.4"])
        columns |= {f"{title}, stride 8": maps[:, [0]], f"{title}, stride 16": maps[:, [1]]}
    write_picture_table(columns, path, {"true outline": [torch.from_numpy(mask) / 255 for _, mask in pairs]})


def _draw_transform(transform: Any, images: Tensor, maps: Tensor, path: Path) -> None:
    """Draw images before and after a transform, what it marks as changed, and both from near."""
    torch.manual_seed(SEED)
    clean = torch.zeros_like(images[:, :1])
    # of a guided swap the first mask is the saliency map
    masks = [maps[:, [STRIDE_8]], clean] if isinstance(transform, RandomCutSwap | RandomCutSwapScar) else [clean]
    augment = AugmentationSequential(transform, data_keys=["input", *["mask"] * len(masks)])
    changed, *_, mask = augment(images, *masks)
    columns = {"before": images, "after": changed, "mask": mask}
    write_picture_table(columns | {"near: before": _near(images, mask), "near: after": _near(changed, mask)}, path)


def _draw_views(images: Tensor, path: Path) -> None:
    torch.manual_seed(SEED)
    size = images.shape[-1]
    write_picture_table({"image": images} | {name: view(size)(images) for name, view in VIEWS.items()}, path)


def _near(images: Tensor, masks: Tensor) -> list[Tensor]:
    """Cut a square out of each image ``(B, 3, H, W)``, around the first changed place."""
    cut = []
    for image, mask in zip(images, masks, strict=True):
        pixels = mask[0].nonzero()
        middle = pixels[(pixels - pixels[0]).abs().amax(1) < NEAR].float().mean(0)
        top, left = (middle - NEAR / 2).clamp(0, image.shape[-1] - NEAR).int().tolist()
        cut.append(image[:, top : top + NEAR, left : left + NEAR])
    return cut


def _colored(item: ImageItem) -> Tensor:
    """Return an anomaly map in colors, ``(3, H, W)``."""
    values = np.asarray(item.anomaly_map.squeeze())
    return torch.from_numpy(mpl.colormaps["inferno"](values)[..., :3]).movedim(-1, 0)


def _to_tensor(image: Any) -> Tensor:
    return torch.from_numpy(np.array(image)).movedim(-1, 0) / 255


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what anomalib and its libraries say out of the log of a build; the user's registry takes no part."""
    home = os.environ.get("ANOMALIB_SPD_HOME")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.environ["ANOMALIB_SPD_HOME"] = folder
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            os.environ.pop("ANOMALIB_SPD_HOME")
            if home is not None:
                os.environ["ANOMALIB_SPD_HOME"] = home


if __name__ == "__main__":
    draw_hero(HERO)
