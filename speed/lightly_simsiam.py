"""SimSiam as a user of lightly writes it: its heads, its loss, its transform, after the example in its documentation."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from anomalib_spd.data import ImageIndex


class LightlySimSiam(LightningModule):
    """SimSiam, each view passed by itself.

    Args:
        encoder: images to pooled features; the heads are as wide as ours.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead

        self.encoder: Any = encoder
        self.projection_head = SimSiamProjectionHead(self.encoder.num_features, 2048, 2048)
        self.prediction_head = SimSiamPredictionHead(2048, 512, 2048)
        self.criterion = NegativeCosineSimilarity()

    def training_step(self, batch: tuple[list[Tensor], Tensor], batch_idx: int) -> Tensor:
        """Return the loss of two views."""
        z_0, z_1 = (self.projection_head(self.encoder(view)) for view in batch[0])
        p_0, p_1 = self.prediction_head(z_0), self.prediction_head(z_1)
        loss: Tensor = 0.5 * (self.criterion(z_0.detach(), p_1) + self.criterion(z_1.detach(), p_0))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of ours."""
        return torch.optim.SGD(self.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)


class Pictures(Dataset[tuple[list[Tensor], int]]):
    """Two views of each image, by lightly's own transform."""

    def __init__(self, root: str, image_size: int) -> None:
        from lightly.transforms.simsiam_transform import SimSiamTransform

        self.files = ImageIndex.of(root)
        self.transform = SimSiamTransform(input_size=image_size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        with Image.open(self.files[index]) as image:
            views: Any = self.transform(image.convert("RGB"))
        return views, 0


def lightly_loader(root: str, image_size: int, batch: int, workers: int) -> DataLoader[Any]:
    """Return batches of views, made in the loader's processes."""
    return DataLoader(
        Pictures(root, image_size),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
