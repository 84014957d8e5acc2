"""Probes how well a detector does with the encoder in training."""

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from anomalib.data import AnomalibDataModule
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from anomalib_spd.backbones.feature_layers import check_layers
from anomalib_spd.data.masks import has_masks
from anomalib_spd.detectors import FastPatchcore
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from anomalib_spd.metrics.table import METRICS

SEED = 0

#: logged name -> metric
PROBED = {f"probe/{metric.name}": metric for metric in METRICS if metric.in_probe}


class DetectionProbe(Callback):
    """Fits PatchCore on the encoder as it is, before the first step and every few epochs, and logs how well it does.

    The metrics are those of :data:`anomalib_spd.metrics.table.METRICS` that are marked for the probe: ``probe/image_AUROC``,
    ``probe/image_AUPR_step`` and, where there are masks, ``probe/pixel_AUPR_step``. They go to the run's loggers, and a line is
    printed. **They are of the data module's test images: watch them, but choose nothing by them**, neither a checkpoint nor a
    setting; what was chosen by test images cannot be judged by them any more. So they are not among the metrics that
    Lightning's callbacks monitor.

    The training does not change: the encoder is copied, and every random state is restored, so that a run with the probe ends
    with the same weights as one without. In a distributed run the first process probes and the others wait.

    Args:
        data: small data module of anomalib, on whose training images PatchCore is fitted and on whose test images it is judged.
        layers: of the encoder that PatchCore reads, first to last.
        coreset_sampling_ratio: of PatchCore.
        every_n_epochs: epochs between two probes.
        image_size: height and width that images are resized to, pixels.
        center_crop_size: height and width of the center crop, pixels; None is the whole image.

    Raises:
        ValueError: for a number of epochs below 1, or a crop larger than the image.
    """

    def __init__(
        self,
        data: AnomalibDataModule,
        layers: Sequence[str] = ("blocks.2", "blocks.4"),
        coreset_sampling_ratio: float = 0.01,
        every_n_epochs: int = 1,
        image_size: tuple[int, int] = (256, 256),
        center_crop_size: tuple[int, int] | None = (224, 224),
    ) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"`every_n_epochs` is 1 or more. Got {every_n_epochs}.")
        self.data = data
        self.layers = list(layers)
        self.coreset_sampling_ratio = coreset_sampling_ratio
        self.every_n_epochs = every_n_epochs
        self.pre_processor: Any = BackbonePreProcessor(image_size, center_crop_size)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the data, and check the layers before anything is trained (a Lightning hook).

        Raises:
            TypeError: for a training without an encoder.
            ValueError: for a layer that the encoder does not have, and for layers out of order.
        """
        if not isinstance(getattr(pl_module, "encoder", None), nn.Module):
            msg = f"The probe reads the `encoder` of a pre-training. Got {type(pl_module).__name__}, which has none."
            raise TypeError(msg)
        if trainer.is_global_zero:
            with isolate_rng():
                torch.manual_seed(SEED)  # a data module may split at random
                check_layers(pl_module.hparams["backbone"], self.layers)
                self.data.prepare_data()
                self.data.setup()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe what the run starts from (a Lightning hook)."""
        if trainer.global_step == 0:
            self._probe(trainer, pl_module, "at the start")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe, if it is time to (a Lightning hook)."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0:
            self._probe(trainer, pl_module, f"after epoch {epoch}")

    def _probe(self, trainer: Trainer, pl_module: LightningModule, when: str) -> None:
        if trainer.is_global_zero:
            start = time.perf_counter()
            values = self.evaluate(pl_module)
            for logger in trainer.loggers:
                # the step of the epoch's last batch, as Lightning has it
                step = max(trainer.global_step - 1, 0)
                logger.log_metrics({"epoch": trainer.current_epoch, **values}, step=step)
                logger.save()
            named = ", ".join(f"{PROBED[name].label} {value:.3f}" for name, value in values.items())
            seconds = time.perf_counter() - start
            data = f"{self.data.name} {getattr(self.data, 'category', '')}".strip()
            pl_module.print(f"probe {when} ({data}, {seconds:.0f} s, test images: choose nothing by it): {named}")
        trainer.strategy.barrier("probe")

    def evaluate(self, pl_module: LightningModule) -> dict[str, float]:
        """Fit PatchCore on the encoder as it is, and judge it.

        Args:
            pl_module: the training; it does not change.

        Returns:
            the metrics by the names under which they are logged, each in ``[0, 1]``.
        """
        with isolate_rng(), torch.no_grad():
            torch.manual_seed(SEED)
            detector: Any = FastPatchcore(
                pl_module.hparams["backbone"],
                self.layers,
                pre_trained=False,
                coreset_sampling_ratio=self.coreset_sampling_ratio,
                pre_processor=False,
                post_processor=False,
                evaluator=False,
                visualizer=False,
            ).to(pl_module.device)
            encoder: Any = pl_module.encoder
            detector.model.feature_extractor = _Layers(encoder, self.layers)
            detector.train()
            for index in range(len(self.data.train_data)):
                detector.model(self._batch(self.data.train_data, index).image.to(pl_module.device))
            detector.fit()
            detector.eval()
            localizes = has_masks(self.data)
            metrics = {
                # the other processes do not take part
                name: metric.build(sync_on_compute=False)
                for name, metric in PROBED.items()
                if localizes or metric.level == "image"
            }
            for index in range(len(self.data.test_data)):
                batch = self._batch(self.data.test_data, index)
                predictions = detector.model(batch.image.to(pl_module.device))
                batch.update(pred_score=predictions.pred_score.cpu(), anomaly_map=predictions.anomaly_map.cpu())
                for metric in metrics.values():
                    metric.update(batch)
            return {name: metric.compute().item() for name, metric in metrics.items()}

    def _batch(self, part: Any, index: int) -> Any:
        """Return one image of a part of the data, with its mask, as PatchCore takes it; so sizes may differ."""
        batch = part.collate_fn([part[index]])
        batch.image, batch.gt_mask = self.pre_processor.transform(batch.image, batch.gt_mask)
        return batch


class _Layers(nn.Module):
    """A detector's feature extractor: a copy of an encoder, in eval mode."""

    def __init__(self, encoder: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        copied = copy.deepcopy(encoder).float().eval()
        # no submodule: the detector does not put it into training mode
        self._encoder = (copied,)
        self._maps: dict[str, Tensor] = {}
        self.layers = layers
        for layer in layers:
            copied.get_submodule(layer).register_forward_hook(self._store(layer))

    def _store(self, layer: str) -> Any:
        def store(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._maps[layer] = output

        return store

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self._encoder[0](images)
        return {layer: self._maps[layer] for layer in self.layers}
