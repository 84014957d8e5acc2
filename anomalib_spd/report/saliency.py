"""The picture of ``anomalib-spd saliency``: where backbones see that images are not like good ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import Normalize

from anomalib_spd.backbones.feature_layers import check_layers, layers
from anomalib_spd.backbones.loading import load
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.data.images import decode
from anomalib_spd.data.index import ImageIndex
from anomalib_spd.report.picture_table import write_picture_table
from anomalib_spd.saliency.difference import difference_maps

#: rows of a picture
MAX_IMAGES = 16
_BATCH = 16
#: as anomalib's detectors feed images to any backbone
_NORMALIZE = Normalize([*IMAGENET_MEAN], [*IMAGENET_STD])


def write_saliency(
    images: Sequence[Path],
    good: Path,
    backbones: Sequence[str],
    output: Path,
    read_layers: Sequence[str] = (),
    image_size: int = 256,
) -> None:
    """Write a picture with a row for each image: the photograph, then each backbone's maps, one a layer.

    A map is LayerCAM of the distance between the image's pooled features and the mean of the good images'.

    Args:
        images: files or folders, of at most ``MAX_IMAGES`` images.
        good: folder of images without defect.
        backbones: names in the registry or in timm.
        output: the picture, new, ``.jpg`` or ``.png``.
        read_layers: of all backbones; by default those that detectors read.
        image_size: height and width of the images, pixels.

    Raises:
        ValueError: for more images than a picture shows, an unknown backbone or layer, another kind of file.
        FileExistsError: where the output exists.
        OSError: where an image cannot be read.
    """
    if output.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise ValueError(f"--output is {output}, expected a name that ends with .jpg or .png")
    if output.exists():
        raise FileExistsError(f"--output {output} exists; give another name, or remove it")
    files = [file for path in images for file in (ImageIndex.of(path, option="IMAGES") if path.is_dir() else [path])]
    if len(files) > MAX_IMAGES:
        raise ValueError(
            f"there are {len(files)} images, and a picture shows at most {MAX_IMAGES}; give some of the files"
        )
    references = [*ImageIndex.of(good, option="--good")]
    of_backbone = {name: list(read_layers) or layers(name) for name in backbones}
    for name, each in of_backbone.items():
        check_layers(name, each)
    pictures = _read(files, image_size)
    encoders = {name: load(name, num_classes=0).eval() for name in backbones}
    means = _mean_features(encoders, references, image_size)
    columns: dict[str, Tensor] = {"image": pictures}
    for name, encoder in encoders.items():
        # one at a time: the gradients of a large network take memory
        maps = torch.cat(
            [difference_maps(encoder, _NORMALIZE(image[None]), means[name], of_backbone[name]) for image in pictures]
        )
        columns |= {f"{name}\n{layer}": maps[:, [number]] for number, layer in enumerate(of_backbone[name])}
    write_picture_table(columns, output)


@torch.no_grad()
def _mean_features(encoders: Mapping[str, nn.Module], files: Sequence[Path], image_size: int) -> dict[str, Tensor]:
    """Return each encoder's mean pooled feature ``(1, C)`` of images, each image's scaled to length one before."""
    features: dict[str, list[Tensor]] = {name: [] for name in encoders}
    for start in range(0, len(files), _BATCH):
        images = _NORMALIZE(_read(files[start : start + _BATCH], image_size))
        for name, encoder in encoders.items():
            features[name].append(F.normalize(encoder(images)))
    return {name: torch.cat(each).mean(0, keepdim=True) for name, each in features.items()}


def _read(files: Sequence[Path], image_size: int) -> Tensor:
    """Return images ``(B, 3, H, W)`` in ``[0, 1]``."""
    pixels = []
    for file in files:
        try:
            pixels.append(decode(file, image_size, keep_aspect=False))
        except Exception as error:
            raise OSError(f"{file} cannot be read as an image: {error}") from error
    return torch.stack(pixels) / 255
