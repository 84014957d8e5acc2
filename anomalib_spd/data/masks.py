"""Masks of anomalies: whether a data module has them, and what is in one."""

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from PIL import Image
from torchvision.tv_tensors import Mask


def has_masks(data: AnomalibDataModule) -> bool:
    """Return whether every anomalous test image of a data module has a mask.

    Args:
        data: a data module that is set up.
    """
    samples = data.test_data.samples
    if "mask_path" not in samples:
        return False
    masks = samples.mask_path[samples.label_index == 1]
    return bool(len(masks)) and bool((masks.notna() & (masks != "")).all())


def read_mask(path: str) -> Mask:
    """Return uint8 ``(H, W)``: 1 for pixels that are not 0 in any channel, or whose palette index is not 0; else 0."""
    with Image.open(path) as image:
        pixels = np.asarray(image)
        if image.getbands()[-1] == "A":
            pixels = pixels[..., :-1]  # opacity says nothing about defects
    return Mask(torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).any(axis=-1)), dtype=torch.uint8)
