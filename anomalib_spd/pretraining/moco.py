"""MoCo v2 with SPot-the-Difference."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalib_spd.augmentation import moco_v2_view
from anomalib_spd.losses import info_nce
from anomalib_spd.pretraining.base import SPDPretraining
from anomalib_spd.training.heads import mlp


class MoCoSPD(SPDPretraining):
    """MoCo v2, plus ``eta`` times SPD on the queries' projections.

    SPD's views go through the query encoder, with gradient; they are neither keys nor in the queue (ours: the paper does not
    say).

    Source: He et al., Momentum Contrast (CVPR 2020), algorithm 1; Chen et al., Improved Baselines with Momentum Contrastive
    Learning (2020) for the head, the views, the temperature and the cosine.

    Departures: a batch is not shuffled between processes before the key encoder; with one process there is nothing to
    shuffle, with several use synchronised batch norm.

    Args:
        projection: width of the projections; the paper's is 128.
        queue_size: K, keys in the queue; the paper's is 65536.
        key_momentum: m of the key encoder; the paper's is 0.999.
        temperature: tau; the paper's is 0.2.
        backbone: see :class:`SPDPretraining`, as are all that follow.
        pretrained: start from the backbone's weights.
        eta: weight of the SPD term.
        image_size: side of the views, pixels.
        learning_rate: at the start of the cosine; the paper's is 0.03 for a batch of 256.
        momentum: of SGD.
        weight_decay: on all weights.

    Raises:
        ValueError: for a key momentum outside ``[0, 1)`` or an empty queue.
    """

    def __init__(
        self,
        projection: int = 128,
        queue_size: int = 65536,
        key_momentum: float = 0.999,
        temperature: float = 0.2,
        backbone: str = "efficientnet_lite0_in1k",
        pretrained: bool = True,
        eta: float = 0.1,
        image_size: int = 224,
        learning_rate: float = 0.03,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__(backbone, pretrained, eta, image_size, learning_rate, momentum, weight_decay)
        if not 0 <= key_momentum < 1:
            msg = f"`key_momentum` lies within [0, 1); the paper's is 0.999. Got {key_momentum}."
            raise ValueError(msg)
        if queue_size < 1:
            msg = f"`queue_size` is the number of keys that are kept, 1 or more. Got {queue_size}."
            raise ValueError(msg)
        self.encoder.reset_classifier(0)
        width = self.encoder.num_features
        self.projector = mlp([width, width, projection], batch_norm=False)
        self.key_encoder: Any = copy.deepcopy(self.encoder).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.key_momentum = key_momentum
        self.temperature = temperature
        self.moco_view = moco_v2_view(image_size)
        self.queue: Tensor
        self.oldest: Tensor
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, projection), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))

    def method_views(self, images: Tensor) -> list[Tensor]:
        """Return the view of the queries."""
        return [self.moco_view(images)]

    def method_loss(self, z: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return InfoNCE of queries and keys against the queue; the keys then take the places of its oldest."""
        (q,) = z
        with torch.no_grad():
            self._follow()
            k = F.normalize(self.key_projector(self.encode(self.key_encoder, [self.moco_view(images)])), dim=1)
        loss = info_nce(q, k, self.queue, self.temperature)
        self._enqueue(self.of_all_processes(k))
        return loss

    def _follow(self) -> None:
        """Move the key encoder towards the encoder."""
        for key, query in ((self.key_encoder, self.encoder), (self.key_projector, self.projector)):
            for theta_k, theta_q in zip(key.parameters(), query.parameters(), strict=True):
                theta_k.lerp_(theta_q, 1 - self.key_momentum)

    @torch.no_grad()
    def _enqueue(self, k: Tensor) -> None:
        # a batch larger than the queue leaves its last keys there
        k = k[-len(self.queue) :]
        places = (self.oldest + torch.arange(len(k), device=k.device)) % len(self.queue)
        self.queue[places] = k.to(self.queue.dtype)
        self.oldest.copy_((self.oldest + len(k)) % len(self.queue))
