"""CutPaste-scar: a thin strip of the image is turned and pasted at another location, in slightly different colors."""

from anomalib_spd.augmentation.cut_paste import PasteAugmentation
from anomalib_spd.augmentation.generators import Jitter, ScarGenerator


class RandomCutPasteScar(PasteAugmentation):
    r"""Cut a thin strip of the image, jitter its colors, turn it, and paste it at a random location.

    Source: Li et al., CutPaste: Self-Supervised Learning for Anomaly Detection and Localization (CVPR 2021), section
    2.3. Ranges are those of its public re-implementations, 2-16 by 10-25 px on images of 256 px; here they scale with the
    image (ours). Pixels are turned to the nearest, so that no color appears that the strip did not have.

    Args:
        width: range of the strip's width as a share of the image's shorter side.
        length: range of its length as such a share.
        degrees: range of the angle, degrees, counter-clockwise as displayed.
        jitter, p, same_on_batch, keepdim: see :class:`RandomCutPaste`.

    Shape:
        - Input, output: as for :class:`RandomCutPaste`.
        - Mask (``data_keys=["input", "mask"]``): the given one, :math:`(B, 1, H, W)`, united with the strip's pixels.

    Raises:
        ValueError: for arguments out of bounds, or images that have neither 1 nor 3 channels.
        TypeError: for images of integers.

    Examples:
        >>> import torch
        >>> from kornia.augmentation import AugmentationSequential
        >>> augment = AugmentationSequential(RandomCutPasteScar(), data_keys=["input", "mask"])
        >>> negative, mask = augment(torch.rand(2, 3, 256, 256), torch.zeros(2, 1, 256, 256))
    """

    def __init__(
        self,
        width: tuple[float, float] = (2 / 256, 16 / 256),
        length: tuple[float, float] = (10 / 256, 25 / 256),
        degrees: tuple[float, float] = (-45.0, 45.0),
        jitter: Jitter = (0.1, 0.1, 0.1, 0.1),
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        super().__init__(ScarGenerator(width, length, degrees), jitter, p, same_on_batch, keepdim)
