"""Local SPD on crops of any images, with layers at equal RMS."""

from typing import Any

import torch
from torch import Tensor, nn

from anomalib_spd.backbones.layer_scales import rescale_layers
from anomalib_spd.backbones.transformers import check_image_size, is_transformer
from anomalib_spd.local.base import LocalSPD
from anomalib_spd.losses import mean_square


class EqualRMSSPD(LocalSPD):
    """Brings the layers to equal RMS before the first step, and back to it at the end of each epoch.

    PatchCore weighs the layers that it concatenates by the size of their numbers, which is whatever training has left, see
    :func:`~anomalib_spd.backbones.layer_scales.rescale_layers`: a training could seem to help by a change of sizes alone. The
    control is given the same.

    Args:
        equalize_rms: bring the layers to equal RMS, their geometric mean, see
            :func:`~anomalib_spd.backbones.layer_scales.rescale_layers` for the networks that allow it. The layers of a transformer are
            read behind one norm, which leaves them so: they are not rescaled.
        image_size: height and width of the crops, pixels; images are not resized.
        **settings: see :class:`~anomalib_spd.local.base.LocalSPD`.
    """

    mean_square: Tensor
    mean_square_sums: Tensor

    def __init__(self, equalize_rms: bool = True, image_size: int = 128, **settings: Any) -> None:
        super().__init__(**settings)
        check_image_size(self.teacher, image_size)
        self.equalize_rms, self.image_size = equalize_rms and not is_transformer(self.teacher), image_size
        layers = self.reader.layers
        if self.equalize_rms:  # refused now or never
            rescale_layers(self.teacher, dict.fromkeys(layers, 1.0))
        # of the teacher's layers, 0 before the first step; and sums of the encoder's over the steps of an epoch
        self.register_buffer("mean_square", torch.zeros(len(layers)))
        self.register_buffer("mean_square_sums", torch.zeros(len(layers)))

    @torch.no_grad()
    def measure(self, images: Tensor) -> None:
        """Bring both networks' layers to equal RMS before the first step, and measure the teacher's; all ranks alike.

        Args:
            images: ``(B, 3, H, W)`` in ``[0, 1]``.
        """
        if self.mean_square.any():
            return
        if self.equalize_rms:
            before = self._mean_across_ranks(mean_square(self.features(self.teacher, images)))
            for network in (self.encoder, self.teacher):
                self._rescale(network, before)
        self.mean_square.copy_(self._mean_across_ranks(mean_square(self.features(self.teacher, images))))

    def teacher_mean_square(self, teacher_maps: list[Tensor]) -> Tensor:
        """Return the mean square of the teacher's layers, ``(L,)``, as it was before the first step."""
        return self.mean_square

    def encoder_mean_square(self, maps: list[Tensor]) -> Tensor:
        """Return the mean square of the encoder's layers, ``(L,)``, and sum it up until the end of the epoch."""
        measured = super().encoder_mean_square(maps)
        self.mean_square_sums += measured
        return measured

    def on_train_epoch_end(self) -> None:
        """Bring the layers back to equal RMS, before the checkpoint (a Lightning hook): SPD alone would change it."""
        if self.equalize_rms:
            self._rescale(self.encoder, self._mean_across_ranks(self.mean_square_sums))
        self.mean_square_sums.zero_()
        super().on_train_epoch_end()  # between two networks at equal RMS

    def _rescale(self, network: nn.Module, measured: Tensor) -> None:
        """Bring a network's layers, whose mean squares ``(L,)`` have these ratios, to one, their geometric mean."""
        factors = (measured.log().mean().exp() / measured).sqrt()
        rescale_layers(network, dict(zip(self.reader.layers, factors, strict=True)))

    def _mean_across_ranks(self, tensor: Tensor) -> Tensor:
        ranks: Any = tensor[None] if self.trainer.world_size == 1 else self.all_gather(tensor)
        mean: Tensor = ranks.mean(0)
        return mean
