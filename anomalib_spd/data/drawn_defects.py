"""Defects drawn on good images by a weighted list of transforms, on the part, with exact masks."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from kornia.augmentation import IntensityAugmentationBase2D
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize, resize

from anomalib_spd.augmentation import (
    RandomCrack,
    RandomCutPaste,
    RandomCutPasteScar,
    RandomCutSwap,
    RandomCutSwapScar,
    RandomSmoothBlend,
)
from anomalib_spd.augmentation.base import takes_saliency
from anomalib_spd.augmentation.change_mask import change_mask
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.backbones.saliency import saliency_cache, saliency_maps
from anomalib_spd.data.faint_defects import foreground
from anomalib_spd.files import digest, one_line

FOREGROUND = "foreground"
#: draws for one image
TRIES = 50
#: the share of a defect that lies on the part, at least
ON_PART = 0.9
#: shorter side of the images on which the part is looked for, pixels
SIZE = 224
#: the smallest image, pixels: a defect of the default mixture is at least a pixel there
LEAST_SIZE = 32
#: visible pixels of a defect on images of ``SIZE``; fewer on smaller ones
LEAST_VISIBLE = 25


def default_defects(guided: bool = False) -> list[nn.Module]:
    """Return the mixture by which thresholds are chosen: each mechanism as often as any other, cracks twice.

    They are the changes that category adaptation draws (:class:`~anomalib_spd.local.CrossImageSPD`). They were found most like real
    defects on categories that judge nothing here (docs/experiments.md, section 22), and were fixed for thresholds before a test
    set was looked at. All but the larger patches are small, since a threshold between good parts and large defects would miss the
    faint ones.

    Args:
        guided: whether there are saliency maps, which then say where CutSwap swaps.
    """
    clusters = 4 if guided else 1
    return [
        RandomSmoothBlend(scale=(0.0005, 0.02), sigma=2.0),
        RandomCutPaste(scale=(0.0005, 0.01)),
        RandomCutPaste(scale=(0.01, 0.05)),
        RandomCutPasteScar(),
        RandomCutSwap(scale=(0.0005, 0.01), clusters=clusters),
        RandomCutSwap(scale=(0.01, 0.05), clusters=clusters),
        RandomCutSwapScar(clusters=clusters),
        RandomCrack(),
        RandomCrack(),
    ]


class Drawn(NamedTuple):
    """A defect on an image.

    Attributes:
        image: float32 ``(3, H, W)`` in ``[0, 1]``, in steps of 1/255 as files have them.
        mask: uint8 ``(H, W)``, 1 where the image changed visibly.
        defect: name of the transform.
        rejected: number of draws before it that lay on the background.
    """

    image: Tensor
    mask: Tensor
    defect: str
    rejected: int


class DefectMixture:
    """Draws one defect on an image: the same for the same seed and name, whatever was drawn before.

    A defect that lies on the background for more than a tenth is drawn anew, up to 50 times; then the one that lay most on the part
    is taken. Source: ours.

    Args:
        defects: transforms: intensity augmentations of Kornia's kind that change masks too, or modules that take an image
            ``(3, H, W)`` and return it with its mask, as anomalib's ``PerlinAnomalyGenerator``. By default
            :func:`default_defects`.
        weights: how often each is drawn, relative to the others; by default all alike.
        saliency: where defects may lie. ``"foreground"``: on what differs from an even background, everywhere if the
            background is not even. The name of a classifier, in the registry or in timm: where its LayerCAM maps, averaged over
            the layers, are above their mean; they guide the transforms that take saliency maps, too. None: anywhere.
        seed: of all draws.

    Raises:
        ValueError: for weights that do not fit, a transform that returns no mask, or a classifier that is none.
    """

    def __init__(
        self,
        defects: Sequence[nn.Module] | None = None,
        weights: Sequence[float] | None = None,
        saliency: str | None = FOREGROUND,
        seed: int = 0,
    ) -> None:
        guided = saliency not in (None, FOREGROUND)
        self.defects = default_defects(guided) if defects is None else list(defects)
        if not self.defects:
            raise ValueError(
                "`defects` is one transform or more, objects or in YAML class_path and init_args. Got none."
            )
        given = [1.0] * len(self.defects) if weights is None else list(weights)
        if len(given) != len(self.defects) or not all(0 < each < float("inf") for each in given):
            raise ValueError(f"`weights` is a positive number for each of {len(self.defects)} defects. Got {given}.")
        self.weights, self.saliency, self.seed = torch.tensor(given, dtype=torch.float64), saliency, seed
        for each in self.defects:
            _check(each)
        self._maps = saliency_cache(str(saliency)) if guided else None

    def __repr__(self) -> str:
        return f"{self.defects}, {self.weights.tolist()}, {self.saliency}, {self.seed}"

    def __call__(self, image: Tensor, name: str) -> Drawn:
        """Draw a defect.

        Args:
            image: float ``(3, H, W)`` in ``[0, 1]``.
            name: of the image.

        Raises:
            ValueError: where no defect shows on it, 50 times in a row.
        """
        saliency = None if self._maps is None else self._saliency(image)
        part = _part(image) if self.saliency == FOREGROUND else None if saliency is None else saliency > saliency.mean()
        least = max(1, LEAST_VISIBLE * (min(image.shape[-2:]) / SIZE) ** 2)
        best, best_share, rejected = None, -1.0, 0
        with isolate_rng(include_cuda=False):
            _seed(int(digest(f"{self.seed} {name}")[:8], 16))
            for _ in range(TRIES):
                defect = self.defects[int(torch.multinomial(self.weights, 1))]
                changed, mask = _apply(defect, image, saliency)
                if mask.sum() < least:
                    continue
                share = 1.0 if part is None else float(part[mask > 0].float().mean())
                if share > best_share:
                    best, best_share = (changed, mask, type(defect).__name__), share
                if share >= ON_PART:
                    break
                rejected += 1
        if best is None:
            height, width = image.shape[-2:]
            raise ValueError(f"{name}: none of {TRIES} defects shows on this image of {width} x {height} pixels.")
        return Drawn(*best, rejected)

    def _saliency(self, image: Tensor) -> Tensor:
        """Return the mean of the layers' maps, ``(H, W)``."""
        assert self._maps is not None
        small = normalize(resize(image, [SIZE, SIZE], antialias=True), list(IMAGENET_MEAN), list(IMAGENET_STD))
        maps = saliency_maps(self._maps, small[None]).mean(1, keepdim=True)
        return F.interpolate(maps, tuple(image.shape[-2:]), mode="bilinear")[0, 0]


def _part(image: Tensor) -> Tensor:
    """Return where the part is, bool ``(H, W)``."""
    height, width = image.shape[-2:]
    small = resize(image, [SIZE], antialias=True) if min(height, width) > SIZE else image
    found = torch.from_numpy(foreground(small.permute(1, 2, 0).numpy()))
    return F.interpolate(found[None, None], (height, width))[0, 0] > 0


def _apply(defect: nn.Module, image: Tensor, saliency: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the changed image, rounded as a file would have it, and the mask of what changed visibly, uint8 ``(H, W)``."""
    if isinstance(defect, IntensityAugmentationBase2D):
        params = defect.forward_parameters((1, *image.shape))
        guide = {} if saliency is None or not takes_saliency(defect) else {"saliency": saliency[None]}
        changed = defect(image[None], params=params, **guide)[0]
        written = defect.transform_masks(torch.zeros_like(image[None, :1]), params, defect.flags)[0]
    else:
        changed, written = defect(image)
    changed = (changed.clamp(0, 1) * 255).round() / 255
    visible = change_mask(image[None], changed[None])[0, 0]
    return changed, ((written.reshape(visible.shape) > 0) & (visible > 0)).to(torch.uint8)


def _check(defect: nn.Module) -> None:
    """Check on noise that a transform returns a mask."""
    if not isinstance(defect, nn.Module):
        raise ValueError(f"`defects` are transforms, objects or in YAML class_path and init_args. Got {defect!r}.")
    reason = "the mask is empty"
    with isolate_rng(include_cuda=False):
        _seed(0)
        image = torch.rand(3, 64, 64)
        try:
            if any(_apply(defect, image)[1].any() for _ in range(TRIES)):
                return
        except Exception as error:  # transforms of anybody raise anything
            reason = one_line(error) or type(error).__name__
    raise ValueError(
        f"{type(defect).__name__} returns no mask of what it changed ({reason}): give one of anomalib_spd.augmentation, another "
        "of Kornia's kind that changes masks too, or a module that returns an image and its mask."
    )


def _seed(number: int) -> None:
    # transforms of others may draw from any of them
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002
    random.seed(number)
