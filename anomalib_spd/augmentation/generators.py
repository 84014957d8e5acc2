"""What is random in the transforms, apart from what is done with it."""

import math
from collections.abc import Sequence

import torch
from kornia.augmentation.random_generator import RandomGeneratorBase
from torch import Tensor

from anomalib_spd.augmentation.swap_locations import swap_places

#: a scar that is smaller, in pixels, could slip between the centers of pixels at some angle
LEAST_SCAR_WIDTH, LEAST_SCAR_LENGTH = 1.5, 2.0

Jitter = tuple[float, float, float, float]


class UniformGenerator(RandomGeneratorBase):
    """Draws uniform numbers on the device it is moved to, always in float32 or wider.

    Half precision would leave holes in the places that can be drawn.
    """

    def make_samplers(self, device: torch.device, dtype: torch.dtype) -> None:
        """Keep nothing: numbers are drawn by ``torch.rand``."""

    def set_rng_device_and_dtype(self, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> None:
        """Draw on this device from now on, here and in the generators that this one is made of."""
        super().set_rng_device_and_dtype(device, dtype)
        for part in self.children():
            if isinstance(part, RandomGeneratorBase):
                part.set_rng_device_and_dtype(device, dtype)

    def uniform(self, number: int, batch_shape: Sequence[int], same_on_batch: bool) -> Tensor:
        """Return ``number`` draws in ``[0, 1)`` for each image, ``(number, B)``."""
        dtype = torch.promote_types(self.dtype, torch.float32)
        drawn = 1 if same_on_batch else batch_shape[0]
        return torch.rand(number, drawn, device=self.device, dtype=dtype).expand(number, batch_shape[0])


def check_range(name: str, value: tuple[float, float], what: str, limit: float = math.inf) -> None:
    """Refuse what is no range of positive numbers up to a limit.

    Raises:
        ValueError: which names the argument, and says what it is a range of.
    """
    if not (len(value) == 2 and 0 < value[0] <= value[1] <= limit and value[1] < math.inf):
        msg = f"`{name}` is a range of {what}. Got {value}."
        raise ValueError(msg)


def between(bounds: tuple[float, float], draw: Tensor) -> Tensor:
    """Return where draws in ``[0, 1)`` lie within a range."""
    return bounds[0] + (bounds[1] - bounds[0]) * draw


class BoxGenerator(UniformGenerator):
    """Draws the size of a patch: its area uniform, its aspect log-uniform, so that lying and standing are as likely.

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
        self.scale = scale
        self.ratio = ratio

    def __repr__(self) -> str:
        return f"scale={self.scale}, ratio={self.ratio}"

    def largest(self, height: int, width: int) -> tuple[int, int, int]:
        """Return the height, the width and the area in pixels that no patch on an image of this size exceeds."""
        area = self.scale[1] * height * width
        tallest = min(height, math.ceil(math.sqrt(area / self.ratio[0])))
        widest = min(width, math.ceil(math.sqrt(area * self.ratio[1])))
        # each side is rounded to the nearest pixel, and is 1 at least
        rounded = max(math.ceil(area + (tallest + widest) / 2 + 1), tallest, widest)
        return tallest, widest, min(tallest * widest, rounded)

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Draw for a batch of ``(B, C, H, W)``."""
        height, width = batch_shape[-2:]
        area_draw, ratio_draw = self.uniform(2, batch_shape, same_on_batch)
        area = between(self.scale, area_draw) * (height * width)
        root = torch.exp(between((math.log(self.ratio[0]) / 2, math.log(self.ratio[1]) / 2), ratio_draw))
        side = area.sqrt()
        return {
            "heights": (side / root).round().clamp(1, height).long(),
            "widths": (side * root).round().clamp(1, width).long(),
        }


class ScarGenerator(UniformGenerator):
    """Draws two scars: thin upright boxes of one size, each with the angle by which the other's content is turned.

    A scar lives in a square that holds it at any angle; the square is what is placed.

    Args:
        width: range of the scar's width, as a share of the image's shorter side, within ``(0, 0.25]``.
        length: range of the scar's length, likewise.
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
        check_range("width", width, "shares of the image's shorter side within (0, 0.25]", 0.25)
        check_range("length", length, "shares of the image's shorter side within (0, 0.25]", 0.25)
        if not (len(degrees) == 2 and -180 <= degrees[0] <= degrees[1] <= 180):
            msg = f"`degrees` is a range within [-180, 180]. Got {degrees}."
            raise ValueError(msg)
        self.width = width
        self.length = length
        self.degrees = degrees

    def __repr__(self) -> str:
        return f"width={self.width}, length={self.length}, degrees={self.degrees}"

    def largest(self, height: int, width: int) -> tuple[int, int, int]:
        """Return the height, the width and the area in pixels that no scar's square exceeds on such an image."""
        shorter = min(height, width)
        widest = max(LEAST_SCAR_WIDTH, self.width[1] * shorter)
        longest = max(LEAST_SCAR_LENGTH, self.length[1] * shorter)
        side = min(shorter, math.ceil(math.hypot(widest, longest)))
        return side, side, side * side

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Draw for a batch of ``(B, C, H, W)``."""
        shorter = min(batch_shape[-2:])
        width_draw, length_draw, *angle_draws = self.uniform(4, batch_shape, same_on_batch)
        widths = (between(self.width, width_draw) * shorter).clamp(min=LEAST_SCAR_WIDTH)
        lengths = (between(self.length, length_draw) * shorter).clamp(min=LEAST_SCAR_LENGTH)
        sides = torch.hypot(widths, lengths).ceil().clamp(max=self.largest(*batch_shape[-2:])[0]).long()
        return {
            "scar_widths": widths,
            "scar_lengths": lengths,
            "angles": between(self.degrees, torch.stack(angle_draws, 1)),
            "heights": sides,
            "widths": sides,
        }


class TwoPlacesGenerator(UniformGenerator):
    """Draws a patch, and two places for it, independent of one another and uniform: where it is cut and where pasted.

    Args:
        size: draws the patch.

    Returns:
        those of ``size`` and ``source_ys``, ``source_xs``, ``target_ys``, ``target_xs``: int64 ``(B,)``, pixels, the
        patch's first row and column.
    """

    def __init__(self, size: BoxGenerator | ScarGenerator) -> None:
        super().__init__()
        self.size = size

    def __repr__(self) -> str:
        return repr(self.size)

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Draw for a batch of ``(B, C, H, W)``."""
        params: dict[str, Tensor] = self.size(batch_shape, same_on_batch)
        height, width = batch_shape[-2:]
        # rows of two places, then their columns
        last = torch.stack([height - params["heights"], width - params["widths"]])[:, None]
        draws = self.uniform(4, batch_shape, same_on_batch).unflatten(0, (2, 2))
        # the minimum is for a draw so near to 1 that the product rounds up to the first place outside
        (source_ys, target_ys), (source_xs, target_xs) = torch.minimum((draws * (last + 1)).long(), last)
        return params | {
            "source_ys": source_ys,
            "source_xs": source_xs,
            "target_ys": target_ys,
            "target_xs": target_xs,
        }


class JitteredGenerator(UniformGenerator):
    """Draws what another generator draws, and how the patch's colours change on the way.

    Args:
        patch: draws the patch and its places.
        jitter: largest change of brightness, contrast and saturation (factors in ``[1 - v, 1 + v]``) and of hue (turns
            in ``[-v, v]``).

    Returns:
        those of ``patch`` and ``jitter``: float ``(B, 4)``, the three factors and the turn of hue.

    Raises:
        ValueError: where a strength is out of bounds.
    """

    def __init__(self, patch: TwoPlacesGenerator, jitter: Jitter) -> None:
        super().__init__()
        if len(jitter) != 4 or min(jitter) < 0 or max(jitter[:3]) > 1 or jitter[3] > 0.5:
            msg = f"`jitter` is brightness, contrast, saturation within [0, 1] and hue within [0, 0.5]. Got {jitter}."
            raise ValueError(msg)
        self.patch = patch
        self.jitter = tuple(jitter)

    def __repr__(self) -> str:
        return f"{self.patch!r}, jitter={self.jitter}"

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Draw for a batch of ``(B, C, H, W)``."""
        params: dict[str, Tensor] = self.patch(batch_shape, same_on_batch)
        draw = self.uniform(4, batch_shape, same_on_batch)
        least = [center - strength for center, strength in zip((1, 1, 1, 0), self.jitter, strict=True)]
        low, span = draw.new_tensor([least, [2 * strength for strength in self.jitter]])
        params["jitter"] = torch.addcmul(low, span, draw.T)
        return params


class SwapGenerator(UniformGenerator):
    """Draws two patches of one size that change places, with anchors from all over the image.

    Args:
        size: draws the patches' size.
        tries: anchors that are drawn for the second patch.

    Returns:
        those of ``size`` and of :func:`swap_places`; ``full_heights``, ``full_widths``: int64 ``(B,)``, pixels, the size
        before anchors left less room; ``anchor_draws``: float ``(B, tries + 1, 2)`` and ``cluster_draw``: float
        ``(B,)``, both in ``[0, 1)``, by which anchors are picked from saliency maps instead.

    Raises:
        ValueError: where patches may be larger than a quarter of the image.
    """

    def __init__(self, size: BoxGenerator | ScarGenerator, tries: int = 20) -> None:
        super().__init__()
        # up to there one side is at most half of the image's; scars are smaller
        if isinstance(size, BoxGenerator) and size.scale[1] > 0.25:
            msg = f"Two patches fit side by side up to a quarter of the image each. Got `scale` {size.scale}."
            raise ValueError(msg)
        self.size = size
        self.tries = tries

    def __repr__(self) -> str:
        return repr(self.size)

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Draw for a batch of ``(B, C, H, W)``."""
        params: dict[str, Tensor] = self.size(batch_shape, same_on_batch)
        size = (batch_shape[-2], batch_shape[-1])
        drawn = self.uniform(2 * self.tries + 3, batch_shape, same_on_batch)
        cluster_draw, draws = drawn[0], drawn[1:].T.contiguous().unflatten(1, (self.tries + 1, 2))
        limits = torch.tensor(size, device=draws.device)
        anchors = torch.minimum((draws * limits).long(), limits - 1)
        params |= {"full_heights": params["heights"], "full_widths": params["widths"]}
        params |= {"anchor_draws": draws, "cluster_draw": cluster_draw}
        return params | swap_places(anchors, params["heights"], params["widths"], size)
