"""The common part of CutSwap's forms: the locations of the two patches, and how a container determines them."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from kornia.augmentation import RandomTransplantation
from kornia.constants import DataKey
from kornia.geometry.keypoints import Keypoints
from torch import Tensor

from anomalib_spd.augmentation.anchors import ClusterChoice, salient_mask, sample_inside, sample_top
from anomalib_spd.augmentation.base import PatchAugmentation, params_like
from anomalib_spd.augmentation.generators import BoxGenerator, ScarGenerator, SwapGenerator
from anomalib_spd.augmentation.patches import Patch, add_to_mask, gather_pixels, locations, scatter_pixels
from anomalib_spd.augmentation.swap_locations import relocate_pair, swap_locations

Guide = Literal["saliency", "anchors"]


class SwapAugmentation(PatchAugmentation, RandomTransplantation):  # type: ignore[misc] # Kornia's bases differ in names
    """A transform that swaps two patches of one size in salient locations.

    A subclass implements :meth:`two_patches`. Kornia's containers let a child see what comes with the images while it
    samples its parameters only where the child is a ``RandomTransplantation``. That is the only reason for this base;
    nothing else of it is used. For its arguments see :class:`RandomCutSwap`.

    Raises:
        ValueError: for arguments out of bounds.
    """

    def __init__(
        self,
        size: BoxGenerator | ScarGenerator,
        clusters: int,
        cluster: ClusterChoice,
        top: int | None,
        guide: Guide | None,
        relocate: bool,
        p: float,
        same_on_batch: bool,
        keepdim: bool,
    ) -> None:
        if clusters < 1 or (top is not None and top < 2):
            raise ValueError(f"`clusters` is 1 or more, and `top` 2 pixels or more. Got {clusters} and {top}.")
        if cluster not in get_args(ClusterChoice) or guide not in (None, *get_args(Guide)):
            raise ValueError(
                f"`cluster` is one of {get_args(ClusterChoice)}, and `guide` None or one of {get_args(Guide)}. "
                f"Got {cluster!r} and {guide!r}."
            )
        flags = {"clusters": clusters, "cluster": cluster, "top": top, "guide": guide}
        super().__init__(SwapGenerator(size, relocate), flags, p, same_on_batch, keepdim)
        self.size = size
        self._is_map_next = False

    @abstractmethod
    def two_patches(self, params: dict[str, Tensor], max_area: int, image_size: tuple[int, int]) -> tuple[Patch, Patch]:
        """Return the patch that is written at the source, and the one at the target; see :func:`patches`."""

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
            input: floating ``(B, C, H, W)`` or ``(C, H, W)``; from a container also a mask.
            params: parameters of an earlier call, to repeat it.
            saliency: floating ``(B, 1, H, W)`` or ``(B, H, W)``, finite.
            anchors: ``(B, T, 2)``, columns and rows of pixels, 2 at least.
            data_keys: what ``input`` is; containers pass them.
            **kwargs: parameters and flags to override.

        Raises:
            ValueError: for a saliency map of another size than the image's, anchors of another shape, or neither where ``guide``
                announces one.
            RuntimeError: for a saliency map with NaN.
        """
        if DataKey.MASK in data_keys:
            # a container passes the image, then the map, which was only to be read, then masks; all may be one tensor
            if self._is_map_next:
                self._is_map_next = False
                return input
            united: Tensor = self.transform_masks(
                input, self._params if params is None else params, self.flags, **kwargs
            )
            return united
        images = self.transform_tensor(input)
        if params is None:
            params = self.forward_parameters(images.shape)
        if anchors is not None:
            params.update(self._locations_at(anchors, images, params))
        elif saliency is not None:
            params.update(self._salient_locations(saliency, images, params))
        elif self.flags["guide"] is not None and "is_guided" not in params:
            raise ValueError(
                f"guide={self.flags['guide']!r} takes what guides it from an AugmentationSequential that holds it directly, not from "
                "one within another. Give the map or the anchors as an argument, or guide=None to swap anywhere."
            )
        self._is_map_next = self.flags["guide"] == "saliency" and "is_guided" in params
        output: Tensor = PatchAugmentation.forward(self, input, params=params, **kwargs)
        return output

    def params_from_input(
        self,
        *input: Any,
        data_keys: list[DataKey],
        params: dict[str, Tensor],
        extra_args: dict[DataKey, dict[str, Any]] | None = None,
    ) -> dict[str, Tensor]:
        """Complete the parameters by what a container passes; the containers call this.

        Raises:
            ValueError: where the saliency map or the anchors that ``guide`` announces are missing.
        """
        guide = self.flags["guide"]
        if guide is None or DataKey.INPUT not in data_keys:
            return params
        key = DataKey.MASK if guide == "saliency" else DataKey.KEYPOINTS
        if key not in data_keys:
            names = [k.name.lower() for k in data_keys]
            raise ValueError(f"guide={guide!r} takes a {key.name.lower()!r} among data_keys. Got {names}.")
        images, given = self.transform_tensor(input[data_keys.index(DataKey.INPUT)]), input[data_keys.index(key)]
        # in place, as Kornia's own do: a container has recorded the parameters already
        if guide == "saliency":
            params.update(self._salient_locations(given, images, params))
        else:
            params.update(self._locations_at(given.data if isinstance(given, Keypoints) else given, images, params))
        params["is_guided"] = torch.ones(len(images), dtype=torch.bool)
        return params

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images ``(B, C, H, W)`` with their patches swapped."""
        pieces = []
        for patch, index, other in self._pieces(input, params):
            read = patch.source + other
            read = read if patch.inside is None else torch.where(patch.inside, read, index)
            pieces.append((index, patch.detach_repetitions(gather_pixels(input, read))))
        return scatter_pixels(input, *pieces)

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with both patches."""
        return add_to_mask(input, *((index, patch.inside) for patch, index, _ in self._pieces(input, params)))

    def transform_keypoint(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        """Return the keypoints unchanged: a swap moves pixels, not points."""
        return input

    def last_swaps(self) -> tuple[Tensor, Tensor]:
        """Return the area and the distance of the last call's patches, each float ``(N,)``, of the N images that were changed.

        A guide decides how much room there is: patches that would overlap shrink. So arms of an ablation that differ in their
        guide differ in these too; ``relocate`` is the control that does not.

        Returns:
            The pixels of one patch as a share of the image's, and the distance of the patches' centers as a share of the
            image's diagonal.

        Raises:
            RuntimeError: before the first call.
        """
        if not self._params:
            raise RuntimeError(f"{type(self).__name__} has swapped nothing yet: call it before `last_swaps`.")
        params = self._params
        height, width = (int(each) for each in params["forward_input_shape"][-2:])
        patch, _ = self.two_patches(params, self.size.largest(height, width)[2], (height, width))
        inside = patch.is_first() if patch.inside is None else patch.inside & patch.is_first()
        across = torch.stack([params["target_ys"] - params["source_ys"], params["target_xs"] - params["source_xs"]])
        changed = params["batch_prob"] > 0.5
        distance = across.double().norm(dim=0).float() / math.hypot(height, width)
        return (inside.sum(1) / (height * width))[changed], distance[changed]

    def _pieces(self, input: Tensor, params: dict[str, Tensor]) -> list[tuple[Patch, Tensor, Tensor]]:
        """Return both patches, each with its index ``(B, N)`` and the first pixel ``(B, 1)`` of the other one."""
        params, (height, width) = params_like(input, params), input.shape[-2:]
        first, second = self.two_patches(params, self.size.largest(height, width)[2], (height, width))
        source, target = (locations(params, name, width) for name in ("source", "target"))
        return [(first, first.offsets + source, target), (second, second.offsets + target, source)]

    def _locations_at(self, anchors: Tensor, images: Tensor, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the locations and sizes of the patches on images ``(B, C, H, W)`` for given anchors."""
        shape = tuple(anchors.shape)
        if len(shape) != 3 or shape[0] != len(images) or shape[1] < 2 or shape[2] != 2:
            raise ValueError(f"Anchors are columns and rows, ({len(images)}, T, 2), of 2 pixels or more. Got {shape}.")
        params, size = params_like(images, params), (images.shape[2], images.shape[3])
        last = torch.tensor(size, device=images.device) - 1
        pixels = torch.minimum(anchors.to(images.device).flip(2).long().clamp(min=0), last)
        return self._swap_locations(pixels, params, size)

    def _swap_locations(self, pixels: Tensor, params: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Return the locations and sizes of the patches for anchors, rows and columns ``(B, T, 2)``."""
        found = swap_locations(pixels, params["full_heights"], params["full_widths"], size)
        # the generator draws a location where both patches are to move
        return relocate_pair(found, params["location_draws"], size) if "location_draws" in params else found

    def _salient_locations(self, saliency: Tensor, images: Tensor, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the locations and sizes of the patches on images ``(B, C, H, W)`` with these maps."""
        batch, size = len(images), (images.shape[2], images.shape[3])
        if saliency.numel() != batch * size[0] * size[1] or tuple(saliency.shape[-2:]) != size:
            expected = f"({batch}, 1, {size[0]}, {size[1]})"
            raise ValueError(
                f"One saliency map of an image's own size is taken, {expected}. Got {tuple(saliency.shape)}."
            )
        if not saliency.is_floating_point():
            raise TypeError(f"Saliency maps are floating. Got {saliency.dtype}.")
        params, maps = params_like(images, params), saliency.to(images.device).reshape(batch, *size)
        draws = params["anchor_draws"]
        if self.flags["top"] is not None:
            pixels = sample_top(maps, self.flags["top"], draws)
        else:
            clusters, choice = self.flags["clusters"], self.flags["cluster"]
            pixels = sample_inside(salient_mask(maps, clusters, choice, params["cluster_draw"]), draws)
        return self._swap_locations(pixels, params, size)
