"""Forms of SPD that no recipe of the package trains, to be compared with those that one does (docs/experiments.md, sections 38 and 39).

``PYTHONPATH=scripts anomalib-spd pretrain --config pretrain/cross_image_spd_real ... --model terms.Contracted``
"""

import copy
from typing import Any

import torch
from torch import Tensor

from anomalib_spd.local import CrossImageSPD
from anomalib_spd.local.base import LocalTerms
from anomalib_spd.losses import patch_embedding
from anomalib_spd.pretraining.base import SPDPretraining

#: share of an image's locations, the farthest, whose distances are contracted
FARTHEST = 0.01


class Contracted(CrossImageSPD):
    """Good images are to lie no farther from each other than they do for the backbone.

    Half of the good images are the memory. Of each other one, the logarithm of the distance of its farthest locations to their
    nearest of the memory, relative to the root mean square of the embedding, is not to grow beyond the backbone's.

    Args:
        contraction: weight of this term beside the SPD term.
        **settings: see :class:`~anomalib_spd.local.CrossImageSPD`.
    """

    def __init__(self, contraction: float = 0.25, **settings: Any) -> None:
        super().__init__(**settings)
        self.contraction = contraction

    def compare(self, images: Tensor, labels: Tensor, masks: Tensor | None = None) -> LocalTerms:
        """Return the terms of cross-image SPD, with what distances have grown by in the SPD term."""
        with torch.no_grad():
            images = self.crop(images)  # the crop of this crop is the same, or flipped
        terms = super().compare(images, labels)
        parts = images[labels >= 0]
        with torch.no_grad():
            before = self._farthest(self.teacher, parts)
        grown = (self._farthest(self.encoder, parts) - before).clamp(min=0).mean()
        self.log("grown", grown)
        return terms._replace(spd=terms.spd + self.contraction * grown)

    def _farthest(self, network: Any, parts: Tensor) -> Tensor:
        """Return the mean logarithm of the distance of the farthest locations of each image of the second half, ``(B,)``."""
        embedding = patch_embedding(self.features(network, parts))
        embedding = embedding / embedding.square().mean().sqrt()
        memory, query = embedding.movedim(1, -1).flatten(1, 2).tensor_split([len(parts) // 2])
        memory = memory.flatten(0, 1)
        with torch.no_grad():
            nearest = torch.cdist(query, memory).argmin(-1)
        squares = (query - memory[nearest]).square().sum(-1)
        return squares.add(1e-6).log().div(2).topk(max(1, int(FARTHEST * squares.shape[1]))).values.mean(1)


class SmallMemory(CrossImageSPD):
    """Each step's memory is a share of its locations, drawn log-uniformly from 0.001 to 1."""

    def compare(self, images: Tensor, labels: Tensor, masks: Tensor | None = None) -> LocalTerms:
        """Return the terms of cross-image SPD with a memory of another size."""
        locations = int((labels >= 0).sum()) // 2 * (self.image_size // 8) ** 2
        self.memory = max(1, int(locations * 10 ** (-3 * torch.rand(()).item())))
        return super().compare(images, labels, masks)


class Distilled(SPDPretraining):
    """SPD on pooled features beside a distillation of these by the backbone itself, without classes.

    Batch norm stays in eval, anchors alone are drawn anew: positive and negative are one weak view.

    Args:
        frozen: parts of the encoder that are not trained.
        **settings: see :class:`~anomalib_spd.pretraining.base.SPDPretraining`.
    """

    def __init__(
        self, frozen: tuple[str, ...] = ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2"), **settings: Any
    ) -> None:
        super().__init__(shared_weak_view=True, **settings)
        self.encoder.reset_classifier(0)
        for part in frozen:
            self.encoder.get_submodule(part).requires_grad_(False)
        self.teacher: Any = copy.deepcopy(self.encoder).requires_grad_(False)
        self.train()  # which Lightning does not call

    def train(self, mode: bool = True) -> "Distilled":
        """Set the mode of all but the networks, whose batch norm stays in eval."""
        super().train(mode)
        self.encoder.eval()
        self.teacher.eval()
        return self

    def method_views(self, images: Tensor) -> list[Tensor]:
        """Return a weak view, whose features are distilled."""
        self.view = self.weak_view(images)
        return [self.view]

    def method_loss(self, z: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return the square of what the features have changed by, relative to their own."""
        with torch.no_grad():
            before = self.encode(self.teacher, [self.view])
        return (z[0] - before).square().mean() / before.square().mean()
