"""Parts of a detector in forms that runtimes compute as training did, and sooner."""

import copy
from typing import Any

import torch
from anomalib.models.components import AnomalibModule, GaussianBlur2d
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.transform import convert_center_crop_transform
from torch import Tensor, nn
from torchvision.transforms.v2 import Compose, InterpolationMode, Resize, Transform

from anomalib_spd.detectors.patchcore import FastPatchcoreModel


def make_exportable(detector: AnomalibModule, *, pickled: bool) -> None:
    """Make a detector that anomalib exports score like itself, and sooner.

    - anomalib takes anti-aliasing out of what it exports: images that are larger than the network's are then resized in another way
      than in training. It is left in; where the file is no pickle, as two matrix products, since OpenVINO reads ONNX's resize with
      anti-aliasing and does without, and its own takes twice the time of a small network.
    - A Gaussian blur is one convolution of 33 x 33; two of 33 are equal but for rounding. On a CPU, the one takes longer than the
      whole of a small network.
    - PatchCore asks for the nearest point of the memory bank at each location, and needs it at one: see
      :class:`~anomalib_spd.detectors.patchcore.FastPatchcoreModel`.

    Args:
        detector: that :func:`~anomalib_spd.deploy.detector.load` returned; it is changed.
        pickled: whether the file will be a pickle, which must not need this package: it keeps torchvision's own transforms and stock
            PatchCore.
    """
    pre_processor: Any = detector.pre_processor
    if isinstance(pre_processor, PreProcessor):
        transform = copy.deepcopy(pre_processor.transform)
        pre_processor.export_transform = transform if pickled else _without_resize(transform)
    if isinstance(detector.model, PatchcoreModel) and not pickled:
        detector.model = FastPatchcoreModel.of(detector.model)
    for module in [*detector.modules()]:
        for name, part in [*module.named_children()]:
            if isinstance(part, GaussianBlur2d) and part.padding == "same" and part.border_type == "reflect":
                setattr(module, name, _separated(part))


class ResizeByProducts(nn.Module):
    """torchvision's ``Resize`` with anti-aliasing, but for rounding: a matrix for the rows, another for the columns.

    Args:
        size: height and width, pixels.
        interpolation: bilinear or bicubic.
    """

    def __init__(self, size: tuple[int, int], interpolation: InterpolationMode) -> None:
        super().__init__()
        self.size, self.kernel = size, _KERNELS[interpolation]

    def forward(self, images: Tensor) -> Tensor:
        """Return images ``(..., H, W)`` as ``(..., *size)``, floating."""
        rows, columns = (
            self._weights(torch.arange(length, device=images.device).to(images) + 0.5, resized)
            for length, resized in zip(images.shape[-2:], self.size, strict=True)
        )
        return rows @ images @ columns.T

    def _weights(self, positions: Tensor, resized: int) -> Tensor:
        """Return the share of each pixel, in rows of sum 1.

        Args:
            positions: centers of the pixels ``(N,)``.
            resized: length, pixels.
        """
        # the length as a tensor, since any is possible: the last center is half a pixel before the end
        scale = (positions[-1:] + 0.5) / resized
        centers = (torch.arange(resized, device=positions.device).to(positions) + 0.5) * scale
        # no pixel is left out where the image is made smaller
        distance = (positions - centers[:, None]).abs() / scale.clamp(min=1)
        weights = self.kernel(distance)
        return weights / weights.sum(1, keepdim=True)


def _linear(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Return Keys' kernel of -0.5, PyTorch's with anti-aliasing."""
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0))


_KERNELS = {InterpolationMode.BILINEAR: _linear, InterpolationMode.BICUBIC: _cubic}


def _without_resize(transform: Transform) -> nn.Module:
    made: nn.Module = convert_center_crop_transform(transform)
    if isinstance(transform, Compose):
        made = Compose([_without_resize(each) for each in transform.transforms])
    elif isinstance(transform, Resize) and transform.antialias and transform.interpolation in _KERNELS:
        size: list[int] = transform.size or []
        if len(size) == 2:  # of one length it depends on the image's form, which torch does not export
            made = ResizeByProducts((size[0], size[1]), transform.interpolation)
    return made


def _separated(blur: GaussianBlur2d) -> nn.Sequential:
    """Return the blur as two convolutions, of torch's own modules: what is pickled must not need this package."""
    channels = blur.kernel.shape[0]
    kernel = blur.kernel[0, 0]  # the product of two of sum 1
    height, width = kernel.shape
    column, row = (
        nn.Conv2d(channels, channels, size, groups=channels, bias=False) for size in ((height, 1), (1, width))
    )
    with torch.no_grad():
        column.weight.copy_(kernel.sum(1)[:, None].expand_as(column.weight))
        row.weight.copy_(kernel.sum(0).expand_as(row.weight))
    pad = nn.ReflectionPad2d((width // 2, width // 2, height // 2, height // 2))
    separated = nn.Sequential(pad, column, row).requires_grad_(False).eval()
    # what reads these of a blur finds them
    separated.register_buffer("kernel", blur.kernel)
    vars(separated)["border_type"] = blur.border_type
    return separated
