"""Faint defects drawn on normal images, where there is no real defect to judge by.

No training of this package perturbs by these mechanisms. Source: ours; docs/experiments.md, sections 21 and 22.
"""

from typing import Any

import numpy as np
import torch
from scipy import ndimage
from skimage.draw import bezier_curve, ellipse
from skimage.transform import resize, swirl
from torch import Tensor

from anomalib_spd.data.synthetic_parts.textures import Texture, draw_color, log_uniform

#: the smallest change of a channel, of its range, that belongs to a defect's mask
VISIBLE = 0.02
#: lengths in pixels are those of images of this size
SIZE = 224
TRIES = 50
Pixels = Any  # arrays of NumPy and SciPy


def draw_faint_defects(images: Tensor, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw one faint defect on each of some copies of normal images.

    A mechanism is drawn for each: a texture in a noisy patch, a swirl, local blur, a blot, a hole filled from its surroundings, or a
    scratch. Its strength is log-uniform from hardly visible to clear. Defects lie on the part, where its background is even and the
    part is not too thin.

    Args:
        images: uint8 ``(B, 3, H, W)`` in ``[0, 255]``.
        number: of defective images; they take turns.
        seed: decides all draws.

    Returns:
        The defective images, uint8 ``(number, 3, H, W)``, and their masks, 0 or 1, float32 ``(number, 1, H, W)``.

    Raises:
        ValueError: where nothing that is drawn on an image shows, 50 times in a row.
    """
    rng = np.random.default_rng(seed)
    defective, masks = [], []
    for index in range(number):
        image = images[index % len(images)].permute(1, 2, 0).numpy() / 255
        changed = _with_defect(image, rng)
        defective.append(torch.from_numpy((changed * 255).round().astype(np.uint8)).permute(2, 0, 1))
        masks.append(torch.from_numpy(np.abs(changed - image).max(2) > VISIBLE)[None].float())
    return torch.stack(defective), torch.stack(masks)


def _with_defect(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Return an image ``(H, W, 3)`` in ``[0, 1]`` with a defect on the part."""
    part, unit = foreground(image), min(image.shape[:2]) / SIZE
    for number in range(TRIES):
        if number == TRIES // 2:
            part = np.ones_like(part)  # what was taken for the part is too thin
        mask, mechanism = _blob(image, rng), rng.integers(6)
        if mechanism == 5:
            mask = _scratch(image, rng)
        if not mask.any() or (part * mask).sum() < 0.9 * mask.sum():
            continue
        changed = np.clip(_MECHANISMS[mechanism](image, mask, log_uniform(rng, 0.15, 1), unit, rng), 0, 1)
        if (np.abs(changed - image).max(2) > VISIBLE).sum() >= 25 * unit**2:
            return changed
    raise ValueError(
        f"No defect shows on an image of {image.shape[1]} x {image.shape[0]} pixels: it is too small, or white and black"
    )


def _textured(image: Pixels, mask: Pixels, strength: float, unit: float, rng: np.random.Generator) -> Pixels:
    waves = resize(rng.standard_normal((16, 16)), mask.shape, order=3)
    where = (_blob(image, rng, 24, 60) * (waves > 0.4) * strength)[..., None]
    texture = draw_color(rng) + Texture(rng).paint(rng, rng.uniform(0, np.pi))
    texture = np.broadcast_to(texture, (*texture.shape[:2], 3))
    return image * (1 - where) + where * resize(np.clip(texture, 0, 1), image.shape, order=1)


def _swirled(image: Pixels, mask: Pixels, strength: float, unit: float, rng: np.random.Generator) -> Pixels:
    rows, columns = np.nonzero(mask)
    radius = max(14 * unit, np.sqrt(mask.sum()))
    turn = 4 * strength * rng.choice([-1, 1])
    return swirl(image, (columns.mean(), rows.mean()), strength=turn, radius=radius, mode="reflect")


def _blurred(image: Pixels, mask: Pixels, strength: float, unit: float, rng: np.random.Generator) -> Pixels:
    soft = ndimage.gaussian_filter(mask, 2 * unit)[..., None]
    sigma = (1 + 2 * strength) * unit
    return image * (1 - soft) + ndimage.gaussian_filter(image, (sigma, sigma, 0)) * soft


def _blotted(image: Pixels, mask: Pixels, strength: float, unit: float, rng: np.random.Generator) -> Pixels:
    soft = ndimage.gaussian_filter(mask, 1.5 * unit)[..., None]
    return image + soft * strength * 0.5 * rng.choice([-1, 1]) * rng.uniform(0.5, 1, 3)


def _filled(image: Pixels, mask: Pixels, strength: float, unit: float, rng: np.random.Generator) -> Pixels:
    sigma, outside = np.sqrt(mask.sum()) / 2, 1 - mask
    around = ndimage.gaussian_filter(image * outside[..., None], (sigma, sigma, 0))
    weight = ndimage.gaussian_filter(outside, sigma).clip(1e-6)
    return np.where(mask[..., None] > 0, around / weight[..., None], image)


def _scratched(image: Pixels, mask: Pixels, strength: float, unit: float, rng: np.random.Generator) -> Pixels:
    return image + ndimage.gaussian_filter(mask, 0.7 * unit)[..., None] * strength * rng.choice([-1, 1])


_MECHANISMS = (_textured, _swirled, _blurred, _blotted, _filled, _scratched)


def _blob(image: Pixels, rng: np.random.Generator, least: int = 10, most: int = 34) -> Pixels:
    """Return an ellipse away from the edge, ``(H, W)``, 0 or 1; its axes are between two lengths."""
    height, width = image.shape[:2]
    mask, unit = np.zeros((height, width)), min(height, width) / SIZE
    row, column = rng.uniform(0.18, 0.82, 2) * (height, width)
    radius, other = rng.uniform(least, most, 2) / 2 * unit
    mask[ellipse(row, column, radius, other, shape=mask.shape, rotation=rng.uniform(-np.pi, np.pi))] = 1
    return mask


def _scratch(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a bent line, ``(H, W)``, 0 or 1."""
    height, width = image.shape[:2]
    mask, unit = np.zeros((height, width)), min(height, width) / SIZE
    start = rng.uniform(0.13, 0.87, 2) * (height, width)
    end = start + rng.uniform(-45, 45, 2) * unit
    bend = (start + end) / 2 + rng.uniform(-15, 15, 2) * unit
    row, column, bent_row, bent_column, last_row, last_column = map(int, (*start, *bend, *end))
    mask[bezier_curve(row, column, bent_row, bent_column, last_row, last_column, weight=1, shape=mask.shape)] = 1
    return ndimage.maximum_filter(mask, max(1, round(2 * unit)))


def foreground(image: Pixels) -> Pixels:
    """Return where the part is, ``(H, W)``, 0 or 1: what differs from an even edge; else everywhere."""
    gray, everywhere = image.mean(2), np.ones(image.shape[:2])
    edge = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    if edge.std() >= 0.08:
        return everywhere
    sigma = 3 * min(image.shape[:2]) / SIZE
    part = (ndimage.gaussian_filter(np.abs(gray - np.median(edge)), sigma) > 0.06).astype(float)
    return everywhere if part.mean() < 0.05 else part
