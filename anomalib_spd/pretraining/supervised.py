"""Supervised pre-training with SPot-the-Difference."""

from typing import Any, Literal, NoReturn, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from anomalib_spd.augmentation import supervised_view
from anomalib_spd.data import LabelledImages
from anomalib_spd.losses import two_way_loss
from anomalib_spd.pretraining.base import SPDPretraining
from anomalib_spd.training.heads import pooled_width

Difference = Literal["cosine", "classification"]


class SupervisedSPD(SPDPretraining):
    """Classification by cross-entropy, plus ``eta`` times SPD on the encoder's pooled features.

    SPD comes in two forms. ``cosine`` compares anchor, positive and negative as the paper's self-supervised arms do, a
    departure from its supervised arm (section 3). ``classification`` is that arm's own: a second classifier distinguishes
    negatives from positives, and the anchors serve the log alone. Both work on the pooled features, as supervised training has
    no projection head.

    Source: Zou et al., SPot-the-Difference Self-Supervised Pre-training (ECCV 2022), section 3. That the second
    classifier is one linear layer is ours.

    Args:
        num_classes: of the data. The backbone's own classifier stays where it has as many, else a new one is trained.
        difference: form of the SPD term, ``cosine`` or ``classification``.
        image_size: height and width of the views, pixels.
        **settings: see :class:`SPDPretraining`.

    Raises:
        ValueError: for another form of the SPD term; in training, for an image of a class beyond ``num_classes``.
    """

    def __init__(
        self, num_classes: int = 1000, difference: Difference = "cosine", image_size: int = 224, **settings: Any
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        if difference not in get_args(Difference):
            raise ValueError(f"`difference` is {' or '.join(get_args(Difference))}. Got {difference!r}.")
        self.num_classes = num_classes
        classifier = self.encoder.get_classifier()
        self.encoder.reset_classifier(0)
        if not isinstance(classifier, nn.Linear) or classifier.out_features != num_classes:
            classifier = nn.Linear(pooled_width(self.encoder), num_classes)
        self.head = classifier
        self.difference_head = nn.Linear(pooled_width(self.encoder), 2) if difference == "classification" else None
        self.supervised_view = supervised_view(image_size)

    def on_fit_start(self) -> None:
        """Check the classes of all images, where they are listed, before the first step (a Lightning hook).

        Raises:
            ValueError: where an image's class is none of ``num_classes``, with its file.
        """
        super().on_fit_start()
        images = getattr(getattr(self.trainer, "datamodule", None), "images", None)
        if isinstance(images, LabelledImages):
            labels = images.files.labels
            if (outside := (labels < 0) | (labels >= self.num_classes)).any():
                self._refuse(
                    int(labels[outside.argmax()]), str(images.files[int(outside.argmax())]), int(labels.max()) + 1
                )

    def _refuse(self, label: int, what: str, classes: int) -> NoReturn:
        raise ValueError(
            f"{what} has the class number {label}, but the classifier has num_classes={self.num_classes}, numbers from 0: give "
            f"--model.init_args.num_classes {classes}, or images of so many classes"
        )

    def method_views(self, images: Tensor) -> list[Tensor]:
        """Return the one view that is classified."""
        return [self.supervised_view(images)]

    def method_loss(self, z: list[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of the classified view.

        Raises:
            ValueError: where a class is none of ``num_classes``.
        """
        (view,) = z
        if labels.max() >= self.num_classes:  # of data that is not listed, such as shards
            self._refuse(int(labels.max()), "An image of the batch", int(labels.max()) + 1)
        return F.cross_entropy(self.head(view), labels)

    def difference_loss(self, z_a: Tensor, z_p: Tensor, z_n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the SPD term in its form, and the mean similarities to positives and to negatives; all scalars."""
        loss, sim_ap, sim_an = super().difference_loss(z_a, z_p, z_n)
        if self.difference_head is not None:
            logits_p, logits_n = self.difference_head(z_p), self.difference_head(z_n)
            loss = two_way_loss(logits_p, logits_n)
            correct = (logits_p.argmax(1) == 0).float().mean() + (logits_n.argmax(1) == 1).float().mean()
            self.log("accuracy_spd", correct / 2)
        return loss, sim_ap, sim_an
