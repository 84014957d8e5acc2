"""CutPaste, CutSwap and SmoothBlend as in the public re-implementations: by Pillow, one image at a time."""

import math
import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from sklearn.cluster import KMeans
from torch import Tensor
from torchvision.transforms import ColorJitter
from torchvision.transforms.functional import to_pil_image, to_tensor

_JITTER = ColorJitter(0.1, 0.1, 0.1, 0.1)


def per_image(images: Tensor, perturb: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Perturb images ``(B, 3, H, W)`` in ``[0, 1]`` one by one, and return them on their device."""
    return torch.stack([to_tensor(perturb(to_pil_image(image))) for image in images.cpu()]).to(images.device)


def cut_paste(image: Image.Image) -> Image.Image:
    """Paste a jittered patch of the image elsewhere."""
    height, width = _size(image, (0.02, 0.15), (0.3, 1 / 0.3))
    x, y = _location(image, height, width)
    image.paste(_JITTER(image.crop((x, y, x + width, y + height))), _location(image, height, width))
    return image


def cut_swap(image: Image.Image, anchors: list[tuple[int, int]] | None = None) -> Image.Image:
    """Swap two patches of the image."""
    height, width = _size(image, (0.02, 0.15), (0.3, 1 / 0.3))
    anchors = anchors or [_location(image, height, width), _location(image, height, width)]
    (x, y), (u, v) = ((min(x, image.width - width), min(y, image.height - height)) for x, y in anchors)
    first, second = (image.crop((a, b, a + width, b + height)) for a, b in ((x, y), (u, v)))
    image.paste(first, (u, v))
    image.paste(second, (x, y))
    return image


def cut_swap_per_image(images: Tensor, maps: Tensor) -> Tensor:
    """Swap two patches of each image where its saliency map ``(1, H, W)`` is in the highest of four clusters."""
    negatives = []
    for image, saliency in zip(images.cpu(), maps.cpu().numpy(), strict=True):
        clusters = KMeans(4, n_init=1).fit(saliency.reshape(-1, 1))
        rows, columns = np.nonzero((clusters.labels_ == clusters.cluster_centers_.argmax()).reshape(saliency.shape[1:]))
        sampled = random.sample(range(len(rows)), 2)
        anchors = [(int(columns[pixel]), int(rows[pixel])) for pixel in sampled]
        negatives.append(to_tensor(cut_swap(to_pil_image(image), anchors)))
    return torch.stack(negatives).to(images.device)


def smooth_blend(image: Image.Image) -> Image.Image:
    """Blend a jittered patch of the image in elsewhere, through a blurred outline."""
    height, width = _size(image, (0.005, 0.01), (0.3, 3.0))
    (x, y), (u, v) = _location(image, height, width), _location(image, height, width)
    foreground, outline = Image.new("RGB", image.size), Image.new("L", image.size)
    foreground.paste(_JITTER(image.crop((x, y, x + width, y + height))), (u, v))
    ImageDraw.Draw(outline).rectangle((u, v, u + width - 1, v + height - 1), fill=255)
    return Image.composite(foreground, image, outline.filter(ImageFilter.GaussianBlur(8)))


def _size(image: Image.Image, scale: tuple[float, float], ratio: tuple[float, float]) -> tuple[int, int]:
    area = random.uniform(*scale) * image.width * image.height
    aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return min(round(math.sqrt(area / aspect)), image.height), min(round(math.sqrt(area * aspect)), image.width)


def _location(image: Image.Image, height: int, width: int) -> tuple[int, int]:
    return random.randint(0, image.width - width), random.randint(0, image.height - height)
