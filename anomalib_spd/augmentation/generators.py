"""What is random in the transforms, apart from what is done with it."""

import math

import torch
from kornia.augmentation.random_generator import RandomGeneratorBase
from torch import Tensor


class PatchPairGenerator(RandomGeneratorBase):
    """Draws a patch of one size at two places, where it is cut and where it is pasted, both inside the image.

    The area is uniform in ``scale``, the aspect log-uniform in ``ratio`` so that lying and standing patches are equally
    likely, the places are uniform.

    Args:
        scale: range of the patch's area as a share of the image's, within ``(0, 1]``.
        ratio: range of the patch's width over its height, positive.

    Returns:
        ``heights``, ``widths``, ``source_ys``, ``source_xs``, ``target_ys``, ``target_xs``: int64 ``(B,)``, pixels;
        ``ys`` and ``xs`` are the patch's first row and column.

    Raises:
        ValueError: where a range is not one, or out of bounds.
    """

    def __init__(self, scale: tuple[float, float], ratio: tuple[float, float]) -> None:
        super().__init__()
        if not 0 < scale[0] <= scale[1] <= 1:
            msg = f"`scale` is a range of shares of the image's area within (0, 1]. Got {scale}."
            raise ValueError(msg)
        if not 0 < ratio[0] <= ratio[1] < math.inf:
            msg = f"`ratio` is a range of positive width / height. Got {ratio}."
            raise ValueError(msg)
        self.scale = scale
        self.ratio = ratio

    def __repr__(self) -> str:
        return f"scale={self.scale}, ratio={self.ratio}"

    def largest_patch(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and the width that no patch on an image of this size exceeds, in pixels."""
        area = self.scale[1] * height * width
        return (
            min(height, math.ceil(math.sqrt(area / self.ratio[0]))),
            min(width, math.ceil(math.sqrt(area * self.ratio[1]))),
        )

    def make_samplers(self, device: torch.device, dtype: torch.dtype) -> None:
        """Keep nothing: numbers are drawn on the device by ``torch.rand``, always in float32 or wider.

        Half precision would leave holes in the places that can be drawn.
        """

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Draw for a batch of ``(B, C, H, W)``."""
        batch_size, (height, width) = batch_shape[0], batch_shape[-2:]
        dtype = torch.promote_types(self.dtype, torch.float32)
        uniform = torch.rand(6, 1 if same_on_batch else batch_size, device=self.device, dtype=dtype)
        area_draw, ratio_draw, source_y, source_x, target_y, target_x = uniform.expand(6, batch_size)

        area = (self.scale[0] + (self.scale[1] - self.scale[0]) * area_draw) * (height * width)
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = torch.exp(low + (high - low) * ratio_draw)
        heights = (area / ratio).sqrt().round().clamp(1, height)
        widths = (area * ratio).sqrt().round().clamp(1, width)

        def place(draw: Tensor, limit: int, size: Tensor) -> Tensor:
            # the clamp is for a draw so near to 1 that the product rounds up to the first place outside
            return torch.minimum((draw * (limit - size + 1)).floor(), limit - size).long()

        return {
            "heights": heights.long(),
            "widths": widths.long(),
            "source_ys": place(source_y, height, heights),
            "source_xs": place(source_x, width, widths),
            "target_ys": place(target_y, height, heights),
            "target_xs": place(target_x, width, widths),
        }


class JitteredPatchGenerator(PatchPairGenerator):
    """Draws a patch pair, and how the patch's colours change on the way.

    Args:
        scale: see :class:`PatchPairGenerator`.
        ratio: see :class:`PatchPairGenerator`.
        jitter: largest change of brightness, contrast and saturation (factors in ``[1 - v, 1 + v]``) and of hue (turns
            in ``[-v, v]``).

    Returns:
        those of :class:`PatchPairGenerator` and ``jitter``: float ``(B, 4)``, the three factors and the turn of hue.

    Raises:
        ValueError: where a range is not one, or out of bounds.
    """

    def __init__(
        self, scale: tuple[float, float], ratio: tuple[float, float], jitter: tuple[float, float, float, float]
    ) -> None:
        super().__init__(scale, ratio)
        if len(jitter) != 4 or min(jitter) < 0 or max(jitter[:3]) > 1 or jitter[3] > 0.5:
            msg = f"`jitter` is brightness, contrast, saturation within [0, 1] and hue within [0, 0.5]. Got {jitter}."
            raise ValueError(msg)
        self.jitter = tuple(jitter)

    def __repr__(self) -> str:
        return f"{super().__repr__()}, jitter={self.jitter}"

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Draw for a batch of ``(B, C, H, W)``."""
        params = super().forward(batch_shape, same_on_batch)
        dtype = torch.promote_types(self.dtype, torch.float32)
        draw = torch.rand(1 if same_on_batch else batch_shape[0], 4, device=self.device, dtype=dtype) * 2 - 1
        center = torch.tensor([1.0, 1.0, 1.0, 0.0], device=self.device, dtype=dtype)
        strength = torch.tensor(self.jitter, device=self.device, dtype=dtype)
        params["jitter"] = (center + draw * strength).expand(batch_shape[0], 4)
        return params
