"""Fine-tuning by classifying images whose patches were moved, and images as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from anomalib_spd.augmentation import (
    RandomColorJitter,
    RandomCutPaste,
    RandomCutPasteScar,
    RandomCutSwap,
    RandomCutSwapScar,
)
from anomalib_spd.augmentation.anchors import ClusterChoice
from anomalib_spd.augmentation.base import takes_saliency
from anomalib_spd.backbones.feature_layers import check_layers
from anomalib_spd.backbones.loading import load
from anomalib_spd.backbones.saliency import draw_saliency_maps, saliency_maps
from anomalib_spd.backbones.saliency import saliency_cache as cache_of
from anomalib_spd.training.heads import mlp, pooled_width
from anomalib_spd.training.module import TrainingModule
from anomalib_spd.training.schedules import cosine

Operation = Literal["swap", "paste"]
BatchNorm = Literal["train", "eval"]


class PatchClassification(TrainingModule):
    r"""Fine-tunes an encoder to classify normal images, those with two patches swapped or one pasted, and scars.

    Every image gives a positive, :math:`x^+`, in slightly other colors, and of it a negative :math:`x^-` of each other class:
    CutSwap or CutPaste, and with three classes a scar. All pass encoder and head together, and the loss is the cross-entropy of
    their class. CutSwap's patches lie where a classifier looks: its LayerCAM maps of several layers are computed once an
    image, of the image before its change of colors, and cached on disk; a step draws one of them for each image.

    In the first ``frozen_steps`` the head alone is trained; the encoder is in eval mode, batch norm too. With several processes
    they need ``--trainer.strategy ddp_find_unused_parameters_true``.

    Source: CutSwap (multilevel saliency-guided fine-tuning), equations 1 to 5, and Li et al., CutPaste (CVPR 2021); what
    they leave open is that of CutPaste's public re-implementations: optimizer, head, colors, warm-up. Departures: the loss is
    the mean over all inputs, as there, where equation 5 adds the terms of a pair; one map is drawn a step where the paper makes
    a pair of each (``all_levels`` is the paper's form, equal in expectation).

    Args:
        backbone: name in the registry or in timm.
        pretrained: start from the backbone's weights.
        operation: ``swap`` is CutSwap, ``paste`` CutPaste, which needs no maps.
        ways: classes; 3 has scars beside patches, 2 has none.
        local_augmentations: transforms of images in ``[0, 1]``, Kornia's or any others, one class of negatives each, in place
            of those of ``operation`` and ``ways``.
        classifier: name in the registry or in timm of the network whose maps guide swaps; the paper's
            is a VGG16 by its layers' numbers, which it does not name: ``vgg16.tv_in1k``.
        layers: of the classifier, one map each; by default the last layer of each stride, as the paper's five.
        clusters: of a map's values, the paper's k; with 1, patches are swapped anywhere, and no map is computed.
        cluster: that patches are taken from, by its center; ``min`` and ``random`` are ablations.
        top: take patches from so many most salient pixels instead, the ablation "saliency sorting" (300).
        all_levels: every step makes a negative of each map, not of one that is drawn.
        scale: range of the patches' area as a share of the image's.
        frozen_steps: in which the encoder is not trained.
        batch_norm: ``train``, or ``eval`` to leave the encoder's statistics as they are (ours).
        learning_rate: at the start of the cosine.
        momentum: of SGD.
        weight_decay: of all weights.
        saliency_cache: folder of maps; by default ``.saliency`` in ``$ANOMALIB_SPD_HOME``, or the platform's for caches.

    Batch:
        ``(images, labels)``: uint8 ``(B, 3, H, W)`` in ``[0, 255]``, as large as detectors will see them; labels are not used.

    Raises:
        ValueError: for arguments out of bounds, or a classifier that is none or has no such layer.
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0_in1k",
        pretrained: bool = True,
        operation: Operation = "swap",
        ways: Literal[2, 3] = 3,
        local_augmentations: Sequence[nn.Module] | None = None,
        classifier: str = "efficientnet_lite0_in1k",
        layers: Sequence[str] | None = None,
        clusters: int = 4,
        cluster: ClusterChoice = "max",
        top: int | None = None,
        all_levels: bool = False,
        scale: tuple[float, float] = (0.02, 0.15),
        frozen_steps: int = 20,
        batch_norm: BatchNorm = "train",
        learning_rate: float = 0.03,
        momentum: float = 0.9,
        weight_decay: float = 3e-5,
        saliency_cache: Path | str | None = None,
    ) -> None:
        super().__init__()
        if operation not in get_args(Operation) or batch_norm not in get_args(BatchNorm) or ways not in (2, 3):
            msg = (
                f"`operation` is one of {get_args(Operation)}, `batch_norm` one of {get_args(BatchNorm)}, `ways` 2 or 3. "
                f"Got {operation!r}, {batch_norm!r} and {ways!r}."
            )
            raise ValueError(msg)
        if frozen_steps < 0:
            raise ValueError(f"`frozen_steps` is a number of steps, 0 or more. Got {frozen_steps}.")
        self.save_settings("saliency_cache")
        guide: Any = {"clusters": clusters, "cluster": cluster, "top": top}
        swaps = operation == "swap"
        if local_augmentations is None:
            patch = RandomCutSwap(scale, **guide) if swaps else RandomCutPaste(scale)
            scar = RandomCutSwapScar(**guide) if swaps else RandomCutPasteScar()
            local_augmentations = [patch, scar][: ways - 1]
            self.classes = ["normal", "patch", "scar"][:ways]
        else:
            self.classes = ["normal", *(f"{number}" for number in range(1, len(local_augmentations) + 1))]
        check_layers(backbone, ())  # else no detector could read what is trained
        self.encoder = load(backbone, pretrained, num_classes=0)
        self.encoder = self.encoder.to(memory_format=torch.channels_last)
        # two hidden layers behind the pooled features (ours: neither paper says how many)
        self.head = mlp([pooled_width(self.encoder), 512, 128, len(self.classes)])
        self.all_levels, self.frozen_steps, self.batch_norm = all_levels, frozen_steps, batch_norm
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.color_jitter = RandomColorJitter(0.1, 0.1, 0.1, 0.1, p=1.0)
        self.local_augmentations = nn.ModuleList(local_augmentations)
        # with one cluster all pixels are salient
        if (clusters > 1 or top is not None) and any(takes_saliency(each) for each in local_augmentations):
            self.saliency = cache_of(classifier, layers, saliency_cache)

    @torch.no_grad()
    def views(self, images: Tensor) -> list[Tensor]:
        """Return positives, and the negatives of each class, of images ``(B, 3, H, W)``, of that shape, in ``[0, 1]``."""
        guides = self._guides(images)
        positive = self.color_jitter(images)
        negatives = [
            transform(positive, **(guide if takes_saliency(transform) else {}))
            for transform in self.local_augmentations
            for guide in guides
        ]
        return [positive, *negatives]

    def _guides(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return what guides each negative: nothing, each image's map of a layer that is drawn, or those of every layer."""
        if self.saliency is None:
            return [{}]
        normalized = self.normalize(images)
        if self.all_levels:
            return [{"saliency": each} for each in saliency_maps(self.saliency, normalized).unbind(1)]
        return [{"saliency": draw_saliency_maps(self.saliency, normalized)}]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step, and train the encoder once the frozen steps are over (a Lightning hook)."""
        super().on_train_batch_start(batch, batch_idx)
        self.encoder.train(not self.is_frozen and self.batch_norm == "train")

    @property
    def is_frozen(self) -> bool:
        """Whether the encoder is not trained yet."""
        return self.global_step < self.frozen_steps

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss, a scalar, and log it with the accuracy of each class.

        Raises:
            FloatingPointError: where the loss is not finite; nothing is learned from that step.
        """
        images, _ = batch
        views = self.views(images)
        inputs = self.normalize(torch.cat(views)).to(self.dtype, memory_format=torch.channels_last)
        with torch.set_grad_enabled(not self.is_frozen):
            features = self.encoder(inputs)
        logits = self.head(features)
        negatives = len(self.classes) - 1
        repeats = (len(views) - 1) // negatives  # 1, or a negative of each level
        view_labels = [0, *(number for number in range(1, negatives + 1) for _ in range(repeats))]
        labels = torch.tensor(view_labels, device=self.device).repeat_interleave(len(images))
        losses = F.cross_entropy(logits, labels, reduction="none").view(len(views), -1).mean(1)
        loss = torch.stack([losses[0], *(each.mean() for each in losses[1:].view(negatives, -1))]).mean()
        self.check_finite(loss, {"normal": losses[0], "negative": losses[1:].mean()})
        self.log("loss", loss, prog_bar=True)
        for number, name in enumerate(self.classes):
            correct = logits[labels == number].argmax(1) == number
            self.log(f"accuracy_{name}", correct.float().mean(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return SGD with a cosine to 0 over all steps of the run."""
        sgd = torch.optim.SGD(self.parameters(), self.learning_rate, self.momentum, weight_decay=self.weight_decay)
        return cosine(self.trainer, sgd)
