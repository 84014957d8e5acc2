"""The views that pre-training compares; each function states its source and its departures.

All views take float ``(B, 3, H, W)`` in ``[0, 1]`` and return ``(B, 3, size, size)`` in ``[0, 1]``; normalization follows
once, on all views together. They use torch's generator alone.

Departures of all random views: they work on floats, where the sources in PyTorch round to bytes between steps; the order of
the color jitter's steps is sampled once a batch, not once an image, as in Kornia; Kornia's random crop does not smooth when
it shrinks, so give images not much larger than ``size``.
"""

from kornia.augmentation import RandomGaussianBlur, RandomGrayscale, RandomHorizontalFlip, RandomResizedCrop
from torch import nn
from torchvision.transforms import v2

from anomalib_spd.augmentation.random_color_jitter import RandomColorJitter

MAX_BLUR_KERNEL = 13
"""Side of the contrastive views' largest blur kernel, pixels: 3 sigma at sigma 2; the rest weighs 0.1 %."""


def anchor_view(size: int) -> nn.Module:
    """Return the SPD anchor: the image itself, its short side resized to ``size``, and center-cropped (ours).

    The paper does not define the anchor; an unofficial implementation resizes the image without changing a color.
    Resizing smooths as in Pillow.
    """
    # torchvision's: Kornia's takes several times as long
    return nn.Sequential(v2.Resize(size, antialias=True), v2.CenterCrop(size), nn.Hardtanh(0.0, 1.0))


def weak_view(size: int) -> nn.Module:
    """Return SPD's weak global augmentation: slight crop, color jitter, blur, flip.

    The SPD paper (section 3) names these steps without strengths; ours are clearly weaker than those of any strong view.
    """
    return nn.Sequential(
        RandomResizedCrop((size, size), scale=(0.8, 1.0), ratio=(0.9, 1.1), cropping_mode="resample"),
        RandomColorJitter(0.1, 0.1, 0.1, 0.05, p=0.8),
        RandomGaussianBlur((7, 7), (0.1, 1.0), p=0.5),
        RandomHorizontalFlip(p=0.5),
        # the blur's weights sum to 1 only up to rounding
        nn.Hardtanh(0.0, 1.0),
    )


def supervised_view(size: int) -> nn.Module:
    """Return the usual augmentation of ImageNet classification: random resized crop and flip.

    As in torchvision's and PyTorch's reference training (scale 0.08-1, aspect 3/4-4/3, flip 0.5).
    """
    return nn.Sequential(
        RandomResizedCrop((size, size), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), cropping_mode="resample"),
        RandomHorizontalFlip(p=0.5),
    )


def simsiam_view(size: int) -> nn.Module:
    """Return the strong view of SimSiam; two samples of it make a pair.

    Source: Chen & He, *Exploring Simple Siamese Representation Learning* (CVPR 2021), appendix A: random resized crop
    (scale 0.2-1), color jitter (0.4, 0.4, 0.4, 0.1) with probability 0.8, gray with 0.2, Gaussian blur of sigma 0.1-2 px,
    flip. The blur's probability of 0.5 is that of the authors' code.

    Departures: the blur is a Gaussian cut off at 3 sigma of the strongest (the code has Pillow's, which is three box
    blurs); see also the module.
    """
    # Pillow's blur is in pixels, whatever the image's size
    return _contrastive_view(size, min_scale=0.2, jitter=(0.4, 0.4, 0.4, 0.1), blur_kernel=MAX_BLUR_KERNEL)


def moco_v2_view(size: int) -> nn.Module:
    """Return the strong view of MoCo v2, which is SimSiam's, with the same departures.

    Source: Chen, Fan, Girshick, He, *Improved Baselines with Momentum Contrastive Learning* (2020), section 3, and its
    code (``--aug-plus``), which SimSiam took over unchanged.
    """
    return simsiam_view(size)


def simclr_view(size: int) -> nn.Module:
    """Return the strong view of SimCLR; two samples of it make a pair.

    Source: Chen, Kornblith, Norouzi, Hinton, *A Simple Framework for Contrastive Learning of Visual Representations*
    (ICML 2020), appendix A: random resized crop (scale 0.08-1, aspect 3/4-4/3), flip with probability 0.5, color jitter
    (0.8, 0.8, 0.8, 0.2) with probability 0.8, gray with 0.2, Gaussian blur of sigma 0.1-2 px with 0.5, its kernel a
    tenth of the image's side (rounded to an odd number as in the authors' code).

    Departures: the blur ends at 3 sigma of the strongest where the tenth is more (from 140 px on); its edge continues beyond
    the image (the code has zeros there, which darken the border); the crop is resized bilinearly (the code's bicubic leaves
    [0, 1]); see also the module.
    """
    blur_kernel = min(2 * (size // 20) + 1, MAX_BLUR_KERNEL)
    return _contrastive_view(size, min_scale=0.08, jitter=(0.8, 0.8, 0.8, 0.2), blur_kernel=blur_kernel)


def _contrastive_view(
    size: int, min_scale: float, jitter: tuple[float, float, float, float], blur_kernel: int
) -> nn.Module:
    """Return the common view of SimSiam, MoCo v2 and SimCLR; that SimCLR flips first makes no difference."""
    return nn.Sequential(
        # sliced, on the half-pixel grid: torchvision's crop without smoothing, and Kornia's cheapest
        RandomResizedCrop(
            (size, size), scale=(min_scale, 1.0), ratio=(3 / 4, 4 / 3), cropping_mode="slice", align_corners=False
        ),
        RandomColorJitter(*jitter, p=0.8),
        RandomGrayscale(p=0.2),
        # Pillow continues the edge too
        RandomGaussianBlur((blur_kernel, blur_kernel), (0.1, 2.0), border_type="replicate", p=0.5),
        RandomHorizontalFlip(p=0.5),
        # the blur's weights sum to 1 only up to rounding
        nn.Hardtanh(0.0, 1.0),
    )
