"""The random parameters of the transforms, apart from their use."""

import math
from collections.abc import Sequence

import torch
from kornia.augmentation.random_generator import RandomGeneratorBase
from torch import Tensor

from anomalib_spd.augmentation.swap_locations import swap_locations

#: pixels; a smaller scar could slip between the centers of pixels at some angle
MIN_SCAR_WIDTH, MIN_SCAR_LENGTH = 1.5, 2.0

Jitter = tuple[float, float, float, float]


class UniformGenerator(RandomGeneratorBase):
    """A generator of uniform numbers on the device that it is moved to, in float32 or wider.

    In half precision some locations could not be sampled.
    """

    def make_samplers(self, device: torch.device, dtype: torch.dtype) -> None:
        """Do nothing: ``torch.rand`` needs no sampler."""

    def set_rng_device_and_dtype(self, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> None:
        """Set the device and the dtype of this generator and of those that it consists of."""
        super().set_rng_device_and_dtype(device, dtype)
        for part in self.children():
            if isinstance(part, RandomGeneratorBase):
                part.set_rng_device_and_dtype(device, dtype)

    def uniform(self, number: int, batch_shape: Sequence[int], same_on_batch: bool) -> Tensor:
        """Return ``number`` draws in ``[0, 1)`` for each image, ``(number, B)``."""
        dtype = torch.promote_types(self.dtype, torch.float32)
        columns = 1 if same_on_batch else batch_shape[0]
        return torch.rand(number, columns, device=self.device, dtype=dtype).expand(number, batch_shape[0])


def check_range(name: str, value: tuple[float, float], what: str, limit: float = math.inf) -> None:
    """Refuse a value that is no range of positive numbers up to a limit.

    Raises:
        ValueError: with the name of the argument and what it is a range of.
    """
    if not (len(value) == 2 and 0 < value[0] <= value[1] <= limit and value[1] < math.inf):
        raise ValueError(f"`{name}` is a range of {what}. Got {value}.")


def between(bounds: tuple[float, float], draw: Tensor) -> Tensor:
    """Map draws in ``[0, 1)`` linearly to a range."""
    return bounds[0] + (bounds[1] - bounds[0]) * draw


class BoxGenerator(UniformGenerator):
    """A generator of patch sizes of uniform area and log-uniform aspect, so that lying and standing are as likely.

    Args:
        scale: range of the patch's area as a share of the image's, within ``(0, 1]``.
        ratio: range of the patch's width over its height, positive.

    Returns:
        ``heights``, ``widths``: int64 ``(B,)``, pixels.

    Raises:
        ValueError: where a range is not one, or out of bounds.
    """

    def __init__(self, scale: tuple[float, float], ratio: tuple[float, float]) -> None:
        super().__init__()
        check_range("scale", scale, "shares of the image's area within (0, 1]", 1)
        check_range("ratio", ratio, "positive width / height")
        self.scale, self.ratio = scale, ratio

    def __repr__(self) -> str:
        return f"scale={self.scale}, ratio={self.ratio}"

    def largest(self, height: int, width: int) -> tuple[int, int, int]:
        """Return upper bounds of the height, the width and the area in pixels on an image of this size."""
        area = self.scale[1] * height * width
        tallest = min(height, math.ceil(math.sqrt(area / self.ratio[0])))
        widest = min(width, math.ceil(math.sqrt(area * self.ratio[1])))
        # each side is rounded to the nearest pixel, and is 1 at least
        rounded = max(math.ceil(area + (tallest + widest) / 2 + 1), tallest, widest)
        return tallest, widest, min(tallest * widest, rounded)

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Sample for a batch of ``(B, C, H, W)``."""
        height, width = batch_shape[-2:]
        area_draw, ratio_draw = self.uniform(2, batch_shape, same_on_batch)
        root_area = (between(self.scale, area_draw) * (height * width)).sqrt()
        root_ratio = torch.exp(between((math.log(self.ratio[0]) / 2, math.log(self.ratio[1]) / 2), ratio_draw))
        return {
            "heights": (root_area / root_ratio).round().clamp(1, height).long(),
            "widths": (root_area * root_ratio).round().clamp(1, width).long(),
        }


class ScarGenerator(UniformGenerator):
    """A generator of pairs of scars: thin upright boxes of one size, each with an angle to turn the other's pixels by.

    A scar lies in a square that holds it at any angle; locations are those of the square.

    Args:
        width: range of the scar's width, as a share of the image's shorter side, within ``(0, 0.25]``.
        length: range of the scar's length, as such a share.
        degrees: range of the angle, degrees, counter-clockwise as displayed.

    Returns:
        ``scar_widths``, ``scar_lengths``: float ``(B,)``, pixels; ``angles``: float ``(B, 2)``, degrees;
        ``heights``, ``widths``: int64 ``(B,)``, the side of the square, pixels.

    Raises:
        ValueError: where a range is not one, or out of bounds.
    """

    def __init__(self, width: tuple[float, float], length: tuple[float, float], degrees: tuple[float, float]) -> None:
        super().__init__()
        # two squares of up to half the image must fit side by side
        for name, value in (("width", width), ("length", length)):
            check_range(name, value, "shares of the image's shorter side within (0, 0.25]", 0.25)
        if not (len(degrees) == 2 and -180 <= degrees[0] <= degrees[1] <= 180):
            raise ValueError(f"`degrees` is a range within [-180, 180]. Got {degrees}.")
        self.width, self.length, self.degrees = width, length, degrees

    def __repr__(self) -> str:
        return f"width={self.width}, length={self.length}, degrees={self.degrees}"

    def largest(self, height: int, width: int) -> tuple[int, int, int]:
        """Return upper bounds of the square's height, width and area in pixels on an image of this size."""
        shorter = min(height, width)
        widest = max(MIN_SCAR_WIDTH, self.width[1] * shorter)
        longest = max(MIN_SCAR_LENGTH, self.length[1] * shorter)
        square = min(shorter, math.ceil(math.hypot(widest, longest)))
        return square, square, square * square

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Sample for a batch of ``(B, C, H, W)``."""
        shorter = min(batch_shape[-2:])
        width_draw, length_draw, *angle_draws = self.uniform(4, batch_shape, same_on_batch)
        widths = (between(self.width, width_draw) * shorter).clamp(min=MIN_SCAR_WIDTH)
        lengths = (between(self.length, length_draw) * shorter).clamp(min=MIN_SCAR_LENGTH)
        sides = torch.hypot(widths, lengths).ceil().clamp(max=self.largest(*batch_shape[-2:])[0]).long()
        angles = between(self.degrees, torch.stack(angle_draws, 1))
        return {"scar_widths": widths, "scar_lengths": lengths, "angles": angles, "heights": sides, "widths": sides}


class PasteGenerator(UniformGenerator):
    """A generator of a patch, of its two independent, uniform locations, and of the change of its colors.

    Args:
        size: samples the size of the patch.
        jitter: largest change of brightness, contrast and saturation (factors in ``[1 - v, 1 + v]``) and of hue (turns
            in ``[-v, v]``).

    Returns:
        Those of ``size``; ``source_ys``, ``source_xs``, ``target_ys``, ``target_xs``: int64 ``(B,)``, pixels, the first
        row and column of where the patch is cut and where it is pasted; ``jitter``: float ``(B, 4)``, the three factors
        and the turn of hue.

    Raises:
        ValueError: where a strength is out of bounds.
    """

    def __init__(self, size: BoxGenerator | ScarGenerator, jitter: Jitter) -> None:
        super().__init__()
        if len(jitter) != 4 or min(jitter) < 0 or max(jitter[:3]) > 1 or jitter[3] > 0.5:
            raise ValueError(
                f"`jitter` is brightness, contrast, saturation within [0, 1] and hue within [0, 0.5]. Got {jitter}."
            )
        self.size = size
        self.jitter = tuple(jitter)

    def __repr__(self) -> str:
        return f"{self.size!r}, jitter={self.jitter}"

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Sample for a batch of ``(B, C, H, W)``."""
        params: dict[str, Tensor] = self.size(batch_shape, same_on_batch)
        height, width = batch_shape[-2:]
        # the rows of both locations, then their columns
        last = torch.stack([height - params["heights"], width - params["widths"]])[:, None]
        draws = self.uniform(4, batch_shape, same_on_batch).unflatten(0, (2, 2))
        # the minimum is for a draw so near to 1 that the product is rounded up to the first location outside
        (source_ys, target_ys), (source_xs, target_xs) = torch.minimum((draws * (last + 1)).long(), last)
        draw = self.uniform(4, batch_shape, same_on_batch)
        least = [center - strength for center, strength in zip((1, 1, 1, 0), self.jitter, strict=True)]
        low, span = draw.new_tensor([least, [2 * strength for strength in self.jitter]])
        return params | {
            "source_ys": source_ys,
            "source_xs": source_xs,
            "target_ys": target_ys,
            "target_xs": target_xs,
            "jitter": torch.addcmul(low, span, draw.T),
        }


class SwapGenerator(UniformGenerator):
    """A generator of two patches of one size that swap, with anchors from all over the image.

    Args:
        size: samples the patches' size.
        relocate: sample also where both patches are moved together.
        tries: number of anchors that are sampled for the second patch.

    Returns:
        Those of ``size`` and of :func:`swap_locations`; ``full_heights``, ``full_widths``: int64 ``(B,)``, pixels, the
        size before anchors left less room; ``anchor_draws``: float ``(B, tries + 1, 2)`` and ``cluster_draw``: float
        ``(B,)``, both in ``[0, 1)``, by which anchors are sampled from saliency maps instead; with ``relocate`` also
        ``location_draws``: float ``(B, 2)`` in ``[0, 1)``.

    Raises:
        ValueError: where patches may be larger than a quarter of the image.
    """

    def __init__(self, size: BoxGenerator | ScarGenerator, relocate: bool = False, tries: int = 20) -> None:
        super().__init__()
        # up to there one side is at most half of the image's; scars are smaller
        if isinstance(size, BoxGenerator) and size.scale[1] > 0.25:
            raise ValueError(
                f"Two patches fit side by side up to a quarter of the image each. Got `scale` {size.scale}."
            )
        self.size = size
        self.relocate = relocate
        self.tries = tries

    def __repr__(self) -> str:
        return repr(self.size)

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Sample for a batch of ``(B, C, H, W)``."""
        params: dict[str, Tensor] = self.size(batch_shape, same_on_batch)
        size = (batch_shape[-2], batch_shape[-1])
        draws = self.uniform(2 * self.tries + 3, batch_shape, same_on_batch)
        cluster_draw, anchor_draws = draws[0], draws[1:].T.contiguous().unflatten(1, (self.tries + 1, 2))
        limits = torch.tensor(size, device=anchor_draws.device)
        anchors = torch.minimum((anchor_draws * limits).long(), limits - 1)
        params |= {"full_heights": params["heights"], "full_widths": params["widths"]}
        params |= {"anchor_draws": anchor_draws, "cluster_draw": cluster_draw}
        if self.relocate:
            params["location_draws"] = self.uniform(2, batch_shape, same_on_batch).T
        return params | swap_locations(anchors, params["heights"], params["widths"], size)
