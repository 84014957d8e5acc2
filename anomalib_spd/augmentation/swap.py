"""What the forms of CutSwap share: where the two patches lie, and how a container says where."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from kornia.augmentation import RandomTransplantation
from kornia.constants import DataKey
from kornia.geometry.keypoints import Keypoints
from torch import Tensor

from anomalib_spd.augmentation.anchors import Choice, draw_from_top, draw_salient
from anomalib_spd.augmentation.base import PatchAugmentation, on_device_of
from anomalib_spd.augmentation.generators import BoxGenerator, ScarGenerator, SwapGenerator
from anomalib_spd.augmentation.swap_locations import swap_places

Guide = Literal["saliency", "anchors"]


class SwapAugmentation(PatchAugmentation, RandomTransplantation):  # type: ignore[misc] # Kornia's bases differ in names
    """A transform of two patches of one size that lie where a saliency map says.

    Kornia's containers let a child see what comes with the images while it draws its parameters only where the child is
    a ``RandomTransplantation``. That is the one reason for this base; nothing else of it is used.

    Args:
        size: draws the size of the patches.
        clusters: see :class:`RandomCutSwap`, as the others.
        cluster: see there.
        top: see there.
        guide: see there.
        p: see there.
        same_on_batch: see there.
        keepdim: see there.

    Raises:
        ValueError: for arguments out of bounds.
    """

    def __init__(
        self,
        size: BoxGenerator | ScarGenerator,
        clusters: int,
        cluster: Choice,
        top: int | None,
        guide: Guide | None,
        p: float,
        same_on_batch: bool,
        keepdim: bool,
    ) -> None:
        if clusters < 1 or (top is not None and top < 2):
            msg = f"`clusters` is 1 or more, and `top` 2 pixels or more. Got {clusters} and {top}."
            raise ValueError(msg)
        if cluster not in get_args(Choice) or guide not in (None, *get_args(Guide)):
            msg = (
                f"`cluster` is one of {get_args(Choice)}, and `guide` None or one of {get_args(Guide)}. "
                f"Got {cluster!r} and {guide!r}."
            )
            raise ValueError(msg)
        flags = {"clusters": clusters, "cluster": cluster, "top": top, "guide": guide}
        super().__init__(SwapGenerator(size), flags, p, same_on_batch, keepdim)
        self.size = size

    def forward(  # type: ignore[override]
        self,
        input: Tensor,
        params: dict[str, Tensor] | None = None,
        saliency: Tensor | None = None,
        anchors: Tensor | None = None,
        data_keys: Sequence[DataKey] = (),
        **kwargs: Any,
    ) -> Tensor:
        """Return the images with two of their patches swapped.

        Args:
            input: floating ``(B, C, H, W)`` or ``(C, H, W)``; from a container, a mask at times.
            params: what was drawn before, to repeat it.
            saliency: floating ``(B, 1, H, W)`` or ``(B, H, W)``, finite.
            anchors: ``(B, T, 2)``, columns and rows of pixels, 2 at least.
            data_keys: what ``input`` is; containers say so.
            **kwargs: parameters and flags to override.

        Raises:
            ValueError: for a saliency map of another size than the image's, or anchors of another shape.
            RuntimeError: for a saliency map with NaN.
        """
        if DataKey.MASK in data_keys:
            params = self._params if params is None else params
            # the map itself has come along only to be read
            if input is params.get("saliency"):
                return input
            united: Tensor = self.transform_masks(input, params, self.flags, **kwargs)
            return united
        images = self.transform_tensor(input)
        if params is None:
            params = self.forward_parameters(images.shape)
        if anchors is not None:
            params.update(self._places_at(anchors, images, params))
        elif saliency is not None:
            params.update(self._salient_places(saliency, images, params))
        output: Tensor = PatchAugmentation.forward(self, input, params=params, **kwargs)
        return output

    def params_from_input(
        self,
        *input: Any,
        data_keys: list[DataKey],
        params: dict[str, Tensor],
        extra_args: dict[DataKey, dict[str, Any]] | None = None,
    ) -> dict[str, Tensor]:
        """Complete the parameters by what a container hands over; the containers call this.

        Raises:
            ValueError: where the saliency map or the anchors that ``guide`` announces are missing.
        """
        guide = self.flags["guide"]
        if guide is None or DataKey.INPUT not in data_keys:
            return params
        key = DataKey.MASK if guide == "saliency" else DataKey.KEYPOINTS
        if key not in data_keys:
            names = [k.name.lower() for k in data_keys]
            msg = f"guide={guide!r} takes a {key.name.lower()!r} among data_keys. Got {names}."
            raise ValueError(msg)
        images, given = self.transform_tensor(input[data_keys.index(DataKey.INPUT)]), input[data_keys.index(key)]
        # in place, as Kornia's own do: a container has its record of the parameters already
        if guide == "saliency":
            params.update(self._salient_places(given, images, params), saliency=given)
        else:
            params.update(self._places_at(given.data if isinstance(given, Keypoints) else given, images, params))
        return params

    def transform_keypoint(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        """Return the keypoints: a swap moves pixels, not points."""
        return input

    def _places_at(self, anchors: Tensor, images: Tensor, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return where the patches lie on images ``(B, C, H, W)`` with these anchors, and how large they are."""
        shape = tuple(anchors.shape)
        if len(shape) != 3 or shape[0] != len(images) or shape[1] < 2 or shape[2] != 2:
            msg = f"Anchors are columns and rows, ({len(images)}, T, 2), of 2 pixels or more. Got {shape}."
            raise ValueError(msg)
        params, size = on_device_of(images, params), (images.shape[2], images.shape[3])
        last = torch.tensor(size, device=images.device) - 1
        pixels = torch.minimum(anchors.to(images.device).flip(2).long().clamp(min=0), last)
        return swap_places(pixels, params["full_heights"], params["full_widths"], size)

    def _salient_places(self, saliency: Tensor, images: Tensor, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return where the patches lie on images ``(B, C, H, W)`` of these maps, and how large they are."""
        batch, size = len(images), (images.shape[2], images.shape[3])
        if saliency.numel() != batch * size[0] * size[1] or tuple(saliency.shape[-2:]) != size:
            expected = f"({batch}, 1, {size[0]}, {size[1]})"
            msg = f"One saliency map of an image's own size is taken, {expected}. Got {tuple(saliency.shape)}."
            raise ValueError(msg)
        if not saliency.is_floating_point():
            msg = f"Saliency maps are floating. Got {saliency.dtype}."
            raise TypeError(msg)
        params, maps = on_device_of(images, params), saliency.to(images.device).reshape(batch, *size)
        if self.flags["top"] is not None:
            pixels = draw_from_top(maps, self.flags["top"], params["anchor_draws"])
        else:
            draws = params["cluster_draw"].contiguous(), params["anchor_draws"]
            pixels = draw_salient(maps, self.flags["clusters"], self.flags["cluster"], *draws)
        return swap_places(pixels, params["full_heights"], params["full_widths"], size)
