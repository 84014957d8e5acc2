"""A Kornia augmentation as a torchvision transform, for the data modules of stock anomalib."""

from typing import Any

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


class TorchvisionTransform(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """A wrapper that makes one of Kornia's intensity augmentations a torchvision v2 transform (ours).

    It is meant for the ``train_augmentations`` of anomalib's data modules, which pass an image, or an image and its mask,
    of the file's size. anomalib resizes later, so put ``v2.Resize`` before this where a blur is meant in the model's pixels.
    Labels are not passed: a perturbed image keeps its label.

    Random numbers come from torch's generator alone. Without workers, that is the process's (``torch.manual_seed``). With
    workers, each has its own, seeded with a number from the data loader's ``generator`` plus the worker's number: the
    same seed and number of workers repeat an epoch, another number of workers does not.

    Args:
        augmentation: one that changes values and moves no pixel, e.g. :class:`RandomSmoothBlend`; its ``p`` is the
            probability.

    Shape:
        - Image: ``tv_tensors.Image`` or, in a sample without one, the first plain tensor: ``(C, H, W)``, or
          ``(B, C, H, W)``, each image with its own parameters. Floating in ``[0, 1]``, or uint8, which is scaled to
          ``[0, 1]`` and back by rounding; unchanged pixels are returned bit for bit.
        - Mask: ``tv_tensors.Mask`` of any dtype, ``(H, W)`` or ``(N, H, W)``, of a batch ``(B, H, W)`` or
          ``(B, N, H, W)``. The augmentation changes it with the image's parameters; those of this package set changed
          pixels to 1, as in anomalib's masks of 0 and 1.
        - Output: of the input's shape, dtype, type and nesting. Everything else passes unchanged.

    Raises:
        TypeError: for an ``augmentation`` of another kind, PIL images, videos, and integer images other than uint8.
        ValueError: for a sample without an image, or whose images and masks do not fit together.

    Examples:
        >>> import torch
        >>> from anomalib_spd.augmentation import RandomSmoothBlend
        >>> augment = v2.Compose([v2.RandomHorizontalFlip(), TorchvisionTransform(RandomSmoothBlend(p=0.5))])
        >>> image = tv_tensors.Image(torch.rand(3, 64, 64))
        >>> mask = tv_tensors.Mask(torch.zeros(64, 64, dtype=torch.uint8))
        >>> image, mask = augment(image, mask)
    """

    def __init__(self, augmentation: IntensityAugmentationBase2D) -> None:
        super().__init__()
        if not isinstance(augmentation, IntensityAugmentationBase2D):
            raise TypeError(
                "`augmentation` is one of Kornia's 2-D intensity augmentations, such as RandomSmoothBlend(); chain "
                f"several, or one with torchvision's, by v2.Compose. Got {augmentation!r}."
            )
        self.augmentation = augmentation

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Tensor]:
        """Sample the parameters, common to all images and masks of a sample."""
        for value in flat_inputs:
            if not isinstance(value, Tensor) or isinstance(value, tv_tensors.Video):
                raise TypeError(
                    f"Give images as tensors; v2.ToImage() turns PIL images into such. Got {type(value).__name__}."
                )
        images = [value for value in flat_inputs if _is_image(value)]
        masks = [value for value in flat_inputs if isinstance(value, tv_tensors.Mask)]
        if not images:
            raise ValueError("Give a sample with an image: a tv_tensors.Image, or a plain tensor. Got none.")
        for image in images:
            if not image.is_floating_point() and image.dtype != torch.uint8:
                raise TypeError(f"Images are floating in [0, 1] or uint8; v2.ToDtype makes them so. Got {image.dtype}.")
        batch, size = images[0].shape[:-3], images[0].shape[-2:]
        if (
            any(image.ndim not in (3, 4) or image.shape[:-3] != batch for image in images)
            or any(mask.shape[: len(batch)] != batch for mask in masks)
            or any(value.shape[-2:] != size for value in images + masks)
        ):
            raise ValueError(
                "Images are (C, H, W) or (B, C, H, W), masks (H, W) or (B, H, W), all of a sample with one H, W and B. "
                f"Got images {[tuple(image.shape) for image in images]}, masks {[tuple(mask.shape) for mask in masks]}."
            )
        params: dict[str, Tensor] = self.augmentation.forward_parameters(_batched(images[0]).shape)
        return params

    def transform(self, inpt: Any, params: dict[str, Tensor]) -> Any:
        """Return the augmented image or mask; other inputs, such as boxes, do not change."""
        if _is_image(inpt):
            output = self._transform_image(inpt.as_subclass(Tensor), params)
        elif isinstance(inpt, tv_tensors.Mask):
            output = self._transform_mask(inpt.as_subclass(Tensor), params)
        else:
            return inpt
        return tv_tensors.wrap(output, like=inpt)

    def _transform_image(self, image: Tensor, params: dict[str, Tensor]) -> Tensor:
        if image.dtype == torch.uint8:
            return (self._transform_image(image / 255, params) * 255).round().clamp(0, 255).to(torch.uint8)
        output: Tensor = self.augmentation(_batched(image), params=params)
        return output.reshape(image.shape)

    def _transform_mask(self, mask: Tensor, params: dict[str, Tensor]) -> Tensor:
        batch_size = len(params["batch_prob"])
        # Kornia takes floating masks only
        floating = mask if mask.is_floating_point() else mask.float()
        output: Tensor = self.augmentation.transform_masks(
            floating.reshape(batch_size, -1, *mask.shape[-2:]), params, self.augmentation.flags
        )
        return output.reshape(mask.shape).to(mask.dtype)


def _is_image(value: Any) -> bool:
    # v2 passes a plain tensor only where it is an image
    return isinstance(value, tv_tensors.Image) or not isinstance(value, tv_tensors.TVTensor)


def _batched(image: Tensor) -> Tensor:
    return image if image.ndim == 4 else image[None]
