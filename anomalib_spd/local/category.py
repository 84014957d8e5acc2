"""Fine-tuning by PatchCore's own question: what is far from all that other normal images show."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import timm
import torch
from kornia.augmentation import Normalize
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from anomalib_spd.augmentation import (
    RandomCutPaste,
    RandomCutPasteScar,
    RandomCutSwap,
    RandomCutSwapScar,
    RandomSmoothBlend,
)
from anomalib_spd.augmentation.anchors import Choice
from anomalib_spd.augmentation.change_mask import visibly_changed
from anomalib_spd.backbones.layer_reader import LayerReader
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.finetuning.classifiers import drawn_maps
from anomalib_spd.finetuning.classifiers import saliency_cache as cache_of
from anomalib_spd.losses import detect_with_memory, distillation, patch_embedding
from anomalib_spd.saliency import SaliencyCache
from anomalib_spd.training.module import TrainingModule

Change = Literal["swap", "paste", "blend"]


class CategoryAdaptation(TrainingModule):
    r"""Fine-tune the layers that detectors read so that changes are far from other normal images, and normal places near.

    A batch is a detector in small. Half of its images are the memory: some of their places, embedded as PatchCore embeds
    them. Into the others local changes are made, CutSwap's, CutPaste's or SmoothBlend's, and the distance of every place to the
    nearest of the memory is mapped as PatchCore maps it. Changed places are to be farther than what would be a false alarm: the farthest
    unchanged places of all images, and those just beside a change, see :func:`~anomalib_spd.losses.local.detection_loss`. So the training
    sees how normal parts differ from each other, which changes alone do not show.

    Beside it a distillation keeps the memory's features at what the backbone, frozen, gives. Batch norm stays in eval, and the
    first layers are not trained. With ``eta = 0`` the distillation alone is left, and with it what weight decay does to features
    in as many steps: the control.

    Source: ours; the changes are those of SPD, CutSwap and Li et al., CutPaste (CVPR 2021), smaller ones too.

    Args:
        backbone: name on the shelf or in timm, a CNN.
        pretrained: start from the backbone's weights.
        layers: that detectors read, first to last.
        frozen: parts of the encoder that are not trained.
        changes: kinds of change, of which each step draws: ``swap`` (CutSwap and its scar), ``paste`` (CutPaste and its scar),
            ``blend`` (SmoothBlend).
        patches: changes of each image.
        memory: places of the other images that are kept.
        eta: weight of the detection.
        temperature: of the comparison of places.
        classifier: name on the shelf or in timm of the network whose saliency maps guide the swaps.
        saliency_layers: of the classifier, one map each; by default the last of each stride.
        clusters: of a map's values, the paper's k; with 1, patches are swapped anywhere, and no map is computed.
        cluster: that patches are taken from, by its center; ``min`` and ``random`` are ablations.
        top: take patches from so many most salient pixels instead.
        learning_rate: the highest of one cycle.
        weight_decay: of AdamW.
        saliency_cache: folder of maps; by default ``.saliency`` in ``$ANOMALIB_SPD_HOME``, or the platform's for caches.

    Batch:
        ``(images, labels)``: uint8 ``(B, 3, H, W)`` in ``[0, 255]``, B at least 2, as large as detectors will see them; labels are
        not used. Of several categories (``--per dataset``) it has to hold some images of each, so that they are among the memory.

    Checkpoint:
        the encoder's tensors are named ``encoder.*``; ``anomalib-spd backbones add`` reads them.

    Raises:
        ValueError: for arguments out of bounds, a layer that the backbone does not have, or a classifier that is none.
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0_in1k",
        pretrained: bool = True,
        layers: Sequence[str] = ("blocks.2", "blocks.4"),
        frozen: Sequence[str] = ("conv_stem", "bn1", "blocks.0", "blocks.1"),
        changes: Sequence[Change] = ("swap",),
        patches: int = 3,
        memory: int = 400,
        eta: float = 1.0,
        temperature: float = 0.2,
        classifier: str = "efficientnet_lite0_in1k",
        saliency_layers: Sequence[str] | None = None,
        clusters: int = 4,
        cluster: Choice = "max",
        top: int | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        saliency_cache: Path | str | None = None,
    ) -> None:
        super().__init__()
        if not changes or not set(changes) <= set(get_args(Change)):
            msg = f"`changes` are some of {get_args(Change)}. Got {list(changes)}."
            raise ValueError(msg)
        if patches < 1 or memory < 1 or eta < 0:
            msg = f"`patches` and `memory` are at least 1, `eta` is not negative. Got {patches}, {memory} and {eta}."
            raise ValueError(msg)
        self.save_hyperparameters(ignore=["saliency_cache"])
        self.reader = LayerReader(backbone, layers)
        self.encoder: Any = timm.create_model(backbone, pretrained=pretrained).to(memory_format=torch.channels_last)
        self.reader.freeze_unused(self.encoder, frozen)
        self.teacher = copy.deepcopy(self.encoder).requires_grad_(False)
        self.patches, self.memory, self.eta, self.temperature = patches, memory, eta, temperature
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.normalize = Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))
        guide: Any = {"clusters": clusters, "cluster": cluster, "top": top}
        # small changes too, as defects are, not only the papers' patches of 2 % and more
        small, large = (0.0005, 0.01), (0.01, 0.05)
        kinds: dict[str, list[nn.Module]] = {
            "swap": [RandomCutSwap(small, **guide), RandomCutSwap(large, **guide), RandomCutSwapScar(**guide)],
            "paste": [RandomCutPaste(small), RandomCutPaste(large), RandomCutPasteScar()],
            "blend": [RandomSmoothBlend((0.0005, 0.02), sigma=2.0)],
        }
        self.changes = nn.ModuleList([each for kind in changes for each in kinds[kind]])
        is_guided = "swap" in changes and (clusters > 1 or top is not None)
        self.saliency: SaliencyCache | None = (
            cache_of(classifier, saliency_layers, saliency_cache) if is_guided else None
        )
        self.train()

    def train(self, mode: bool = True) -> "CategoryAdaptation":
        """Set the mode of all but the networks, whose batch norm stays in eval."""
        super().train(mode)
        self.encoder.eval()
        self.teacher.eval()
        return self

    def on_fit_start(self) -> None:
        """Take the classifier to where the images will be (a Lightning hook)."""
        super().on_fit_start()
        if self.saliency is not None:
            self.saliency.cam.model.to(self.device)

    def views(self, images: Tensor) -> list[Tensor]:
        """Return the images ``(B, 3, H, W)`` and their changed forms, in ``[0, 1]``."""
        return [images, self._changed(images)]

    @torch.no_grad()
    def _changed(self, images: Tensor) -> Tensor:
        guide = {} if self.saliency is None else {"saliency": drawn_maps(self.saliency, self.normalize(images))}
        for _ in range(self.patches):
            change = self.changes[int(torch.randint(len(self.changes), ()))]
            images = change(images, **guide if isinstance(change, RandomCutSwap | RandomCutSwapScar) else {})
        return images

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss, a scalar, and log its terms, the share of false alarms below changes, and the layers' energies.

        Raises:
            ValueError: where there is one image: it is nobody's memory.
            FloatingPointError: where the loss is not finite; nothing is learnt from that step.
        """
        images, _ = batch
        if len(images) < 2:
            msg = (
                "One image of a batch is looked at with the memory of another. Got batches of 1: give more images or a larger "
                "--batch_size, or patch classification (anomalib_spd/configs/finetune/cutswap.yaml), which takes one."
            )
            raise ValueError(msg)
        remembered, queries = images.tensor_split([len(images) // 2])
        changed = self._changed(queries)
        mask = visibly_changed(queries, changed)
        with torch.no_grad():
            taught = self._maps(self.teacher, remembered)
            energies = torch.stack([each.square().sum(1).mean() for each in taught])
        maps = self._maps(self.encoder, torch.cat([remembered, changed]))
        mine = [each[: len(remembered)] for each in maps]
        kept = distillation(mine, taught, energies)
        # of unit energy: the loss is of ratios, but for the little that keeps distances from 0
        normal, shown = (patch_embedding(maps) / energies.sum().sqrt()).tensor_split([len(remembered)])
        detection, in_order = detect_with_memory(normal, shown, mask, self.memory, self.temperature)
        loss = kept.mean() + self.eta * detection
        self.check_finite(loss, {"distillation": kept.mean(), "detection": detection})
        self.log("loss", loss, prog_bar=True)
        self.log("loss_detection", detection, prog_bar=True)
        self.log("in_order", in_order, prog_bar=True)
        for layer, keep, each, energy in zip(self.reader.layers, kept, mine, energies, strict=True):
            self.log(f"keep_{layer}", keep)
            self.log(f"energy_{layer}", each.detach().square().sum(1).mean() / energy)
        return loss

    def _maps(self, network: Any, images: Tensor) -> list[Tensor]:
        return self.reader(network, self.normalize(images).to(self.dtype, memory_format=torch.channels_last))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW in one cycle over all steps of the run."""
        weights = [each for each in self.encoder.parameters() if each.requires_grad]
        return self.one_cycle(torch.optim.AdamW(weights, lr=self.learning_rate, weight_decay=self.weight_decay))
