"""MoCo v2 with SPot-the-Difference."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalib_spd.augmentation import moco_v2_view
from anomalib_spd.losses import info_nce
from anomalib_spd.pretraining.base import SPDPretraining
from anomalib_spd.training.heads import mlp, pooled_width


class MoCoSPD(SPDPretraining):
    """MoCo v2, plus ``eta`` times SPD on the queries' projections.

    SPD's views pass the query encoder, with gradient; they are neither keys nor in the queue (ours: the paper does not say).

    Source: He et al., Momentum Contrast (CVPR 2020), algorithm 1; Chen et al., Improved Baselines with Momentum Contrastive
    Learning (2020) for the head, the views, the temperature and the cosine.

    Departures: the keys' order is not shuffled before the key encoder (ShuffleBN). It keeps a query and its key from being
    normalized by the statistics of the same images, by which the pair could be told without looking at it. Here SPD's views
    pass the query encoder with the queries, so that its statistics are of other views than the keys' in any case; with
    several processes use synchronized batch norm.

    Args:
        projection: width of the projections; the paper's is 128.
        queue_size: K, keys in the queue; the paper's is 65536.
        key_momentum: m of the key encoder; the paper's is 0.999.
        temperature: tau; the paper's is 0.2.
        image_size: height and width of the views, pixels.
        learning_rate: at the start of the cosine; the paper's is 0.03 for a batch of 256.
        **settings: see :class:`SPDPretraining`.

    Raises:
        ValueError: for a key momentum outside ``[0, 1)`` or an empty queue.
    """

    queue: Tensor
    oldest: Tensor

    def __init__(
        self,
        projection: int = 128,
        queue_size: int = 65536,
        key_momentum: float = 0.999,
        temperature: float = 0.2,
        image_size: int = 224,
        learning_rate: float = 0.03,
        **settings: Any,
    ) -> None:
        super().__init__(image_size=image_size, learning_rate=learning_rate, **settings)
        if not 0 <= key_momentum < 1:
            raise ValueError(f"`key_momentum` lies within [0, 1); the paper's is 0.999. Got {key_momentum}.")
        if queue_size < 1:
            raise ValueError(f"`queue_size` is the number of keys in the queue, 1 or more. Got {queue_size}.")
        self.encoder.reset_classifier(0)
        width = pooled_width(self.encoder)
        self.projector = mlp([width, width, projection], batch_norm=False)
        self.key_encoder: Any = copy.deepcopy(self.encoder).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.key_momentum = key_momentum
        self.temperature = temperature
        self.moco_view = moco_v2_view(image_size)
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, projection), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))

    def method_views(self, images: Tensor) -> list[Tensor]:
        """Return the view of the queries."""
        return [self.moco_view(images)]

    def method_loss(self, z: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return InfoNCE of queries and keys against the queue; the keys then replace its oldest."""
        (q,) = z
        with torch.no_grad():
            self._update_key_encoder()
            k = F.normalize(self.key_projector(self.encode(self.key_encoder, [self.moco_view(images)])), dim=1)
        loss = info_nce(q, k, self.queue, self.temperature)
        self._enqueue(self.gather_across_ranks(k))
        return loss

    def _update_key_encoder(self) -> None:
        """Move the key encoder towards the encoder."""
        for key, query in ((self.key_encoder, self.encoder), (self.key_projector, self.projector)):
            for theta_k, theta_q in zip(key.parameters(), query.parameters(), strict=True):
                theta_k.lerp_(theta_q, 1 - self.key_momentum)

    @torch.no_grad()
    def _enqueue(self, k: Tensor) -> None:
        # a batch larger than the queue leaves its last keys there
        k = k[-len(self.queue) :]
        rows = (self.oldest + torch.arange(len(k), device=k.device)) % len(self.queue)
        self.queue[rows] = k.to(self.queue.dtype)
        self.oldest.copy_((self.oldest + len(k)) % len(self.queue))
