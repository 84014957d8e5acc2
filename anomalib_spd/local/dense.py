"""SPot-the-Difference place by place, on the layers that detectors read."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from kornia.augmentation import (
    AugmentationSequential,
    RandomAffine,
    RandomCrop,
    RandomGaussianBlur,
    RandomGaussianNoise,
    RandomHorizontalFlip,
)
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from anomalib_spd.augmentation import RandomCutPaste, RandomCutPasteScar, RandomSmoothBlend
from anomalib_spd.augmentation.change_mask import visibly_changed
from anomalib_spd.augmentation.random_color_jitter import RandomColorJitter
from anomalib_spd.backbones.layer_reader import LayerReader
from anomalib_spd.backbones.layer_scales import rescale_layers
from anomalib_spd.losses import distillation, localization_loss, patch_distance
from anomalib_spd.pretraining.base import SPDPretraining


class DenseSPD(SPDPretraining):
    r"""Distillation of the backbone by itself, plus ``eta`` times SPD at every place of the layers that detectors read.

    The method's own part keeps the features :math:`f_l` of a layer at what the backbone, frozen, gives for the same image
    before its photometric change: :math:`\mathrm{mean}\,|f_l(x_p) - t_l(x_a)|^2 / E_l` with the mean square :math:`E_l` of the
    backbone's. SPD compares the positive with the negative, the same view slightly turned, moved and noisy, with local changes:
    the distance of their embeddings, joined, smoothed and enlarged as in PatchCore, is to be larger at each changed place
    than at each unchanged one, those just beside a change above all, see
    :func:`~anomalib_spd.losses.local.localization_loss`. The pooled feature, which the paper compares, does not say where.

    PatchCore weighs the layers that it joins by the size of their numbers, which is whatever training has left. So before
    the first step the layers are brought to one energy, see :func:`~anomalib_spd.backbones.layer_scales.rescale_layers`:
    otherwise a training could seem to help by a change of sizes alone. They are brought back to it at the end of each
    epoch; the control is given the same.

    Batch norm stays in eval, and the first layers are not trained: what the layers behind the last of ``layers`` learnt
    from them must go on to hold.

    Source: ours. With ``eta = 0`` it is the distillation alone.

    Args:
        layers: that detectors read, first to last.
        frozen: parts of the encoder that are not trained.
        equalize: bring the layers to one energy, their geometric mean; of EfficientNets alone.
        patches: local changes of each negative, each drawn from SmoothBlend, CutPaste and its scars, small to large.
        temperature: of the comparison of places.
        backbone: see :class:`SPDPretraining`, as are all that follow.
        pretrained: start from the backbone's weights.
        eta: weight of the SPD term.
        image_size: side of the crops, pixels; images are not resized.
        learning_rate: the highest of one cycle.
        weight_decay: of AdamW.
    """

    energies: Tensor
    sums: Tensor

    def __init__(
        self,
        layers: Sequence[str] = ("blocks.2", "blocks.4"),
        frozen: Sequence[str] = ("conv_stem", "bn1", "blocks.0", "blocks.1"),
        equalize: bool = True,
        patches: int = 3,
        temperature: float = 0.2,
        backbone: str = "efficientnet_lite0_in1k",
        pretrained: bool = True,
        eta: float = 5.0,
        image_size: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__(backbone, pretrained, eta, image_size, learning_rate, momentum=0.9, weight_decay=weight_decay)
        self.layers, self.equalize, self.patches, self.temperature = list(layers), equalize, patches, temperature
        self.reader = LayerReader(backbone, layers)
        self.reader.freeze_unused(self.encoder, frozen)
        self.teacher = copy.deepcopy(self.encoder).requires_grad_(False)
        if equalize:  # refused now or never
            rescale_layers(self.teacher, dict.fromkeys(layers, 1.0))
        # of the teacher's layers, 0 before the first step; and sums of the encoder's over the steps of an epoch
        self.register_buffer("energies", torch.zeros(len(layers)))
        self.register_buffer("sums", torch.zeros(len(layers)))

        self.crop = nn.Sequential(RandomCrop((image_size, image_size)), RandomHorizontalFlip(p=0.5))
        self.photometric = nn.Sequential(
            RandomColorJitter(0.1, 0.1, 0.1, 0.02, p=0.8),
            RandomGaussianBlur((7, 7), (0.1, 1.0), p=0.5),
        )
        self.noise = RandomGaussianNoise(std=0.01, p=1.0)
        self.changes = nn.ModuleList(
            [
                RandomSmoothBlend(scale=(0.0005, 0.02), sigma=2.0),
                RandomCutPaste(scale=(0.0005, 0.01)),
                RandomCutPaste(scale=(0.01, 0.05)),
                RandomCutPasteScar(),
            ]
        )
        # as one part does not lie quite as another; where a place was is still among its neighbours
        self.move: nn.Module = AugmentationSequential(
            RandomAffine(6.0, translate=(0.025, 0.025), scale=(0.97, 1.03), padding_mode="reflection", p=1.0),
            data_keys=["input", "mask"],
        )
        self.train()

    def train(self, mode: bool = True) -> "DenseSPD":
        """Set the mode of all but the networks, whose batch norm stays in eval."""
        super().train(mode)
        self.encoder.eval()
        self.teacher.eval()
        return self

    def views(self, images: Tensor) -> list[Tensor]:
        """Return anchor, positive and negative of images ``(B, 3, H, W)``, all ``(B, 3, size, size)`` in ``[0, 1]``."""
        return self._pairs(images)[:3]

    def _pairs(self, images: Tensor) -> list[Tensor]:
        """Return the views and a mask ``(B, 1, size, size)`` of what the negatives' changes have changed visibly, 0 or 1."""
        with torch.no_grad():
            anchor = self.crop(images)
            positive = self.photometric(anchor).clamp(0, 1)
            negative, mask = self.move(*self._changed(positive))
            return [anchor, positive, self.noise(negative).clamp(0, 1), mask]

    def _changed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return images with local changes, and the mask of what has changed visibly."""
        changed = images
        for _ in range(self.patches):
            changed = self.changes[int(torch.randint(len(self.changes), ()))](changed)
        return changed, visibly_changed(images, changed)

    def features(self, network: Any, images: Tensor) -> list[Tensor]:
        """Return the maps ``(B, C, h, w)`` of the layers, of images ``(B, 3, H, W)`` in ``[0, 1]``."""
        return self.reader(network, self.normalize(images).to(self.dtype, memory_format=torch.channels_last))

    def losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the distillation, the SPD term, and what is logged beside them.

        Args:
            images: ``(B, 3, H, W)`` in ``[0, 1]``.
            labels: are not used.
        """
        del labels
        anchor, positive, negative, mask = self._pairs(images)
        with torch.no_grad():
            if not self.energies.any():
                self._measure(anchor)
            taught = self.features(self.teacher, anchor)
        maps = self.features(self.encoder, torch.cat([positive, negative]))
        kept = distillation([each[: len(images)] for each in maps], taught, self.energies)
        # the loss is of ratios, but for the little that keeps distances from 0
        unit = self.energies.sum().sqrt()
        distance = patch_distance([each / unit for each in maps], mask.shape[-2:])
        difference_loss, in_order = localization_loss(distance, mask, self.temperature)
        return kept.mean(), difference_loss, {**self._noted(maps, kept), "in_order": in_order}

    def _noted(self, maps: list[Tensor], kept: Tensor) -> dict[str, Tensor]:
        """Note the layers' energies, and return what is logged of each: that, and how far it is from the backbone."""
        measured = torch.stack([each.detach().square().sum(1).mean() for each in maps])
        self.sums += measured
        logged = {f"keep_{layer}": each.detach() for layer, each in zip(self.layers, kept, strict=True)}
        return logged | {f"energy_{layer}": each for layer, each in zip(self.layers, measured, strict=True)}

    def _measure(self, images: Tensor) -> None:
        """Bring the layers to one energy before the first step, and note it; all processes alike."""

        def energies() -> Tensor:
            maps = self.features(self.teacher, images)
            return self._of_all(torch.stack([each.square().sum(1).mean() for each in maps]))

        if self.equalize:
            before = energies()
            for network in (self.encoder, self.teacher):
                self._scale(network, before)
        self.energies.copy_(energies())

    def on_train_epoch_end(self) -> None:
        """Bring the layers back to one energy, before the checkpoint (a Lightning hook): SPD alone would move it."""
        if self.equalize:
            self._scale(self.encoder, self._of_all(self.sums))
        self.sums.zero_()

    def _scale(self, network: nn.Module, energies: Tensor) -> None:
        """Bring a network's layers, whose energies ``(L,)`` are in these ratios, to one, their geometric mean."""
        factors = (energies.log().mean().exp() / energies).sqrt()
        rescale_layers(network, dict(zip(self.layers, factors, strict=True)))

    def _of_all(self, mine: Tensor) -> Tensor:
        """Return the mean over all processes."""
        everyones: Any = mine[None] if self.trainer.world_size == 1 else self.all_gather(mine)
        mean: Tensor = everyones.mean(0)
        return mean

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW in one cycle over all steps of the run."""
        weights = [each for each in self.encoder.parameters() if each.requires_grad]
        return self.one_cycle(torch.optim.AdamW(weights, lr=self.learning_rate, weight_decay=self.weight_decay))
