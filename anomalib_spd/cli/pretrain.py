"""The command ``anomalib-spd pretrain``: images in, a checkpoint of a backbone out."""

from lightning.pytorch import LightningDataModule

from anomalib_spd.cli.training import TrainingCLI
from anomalib_spd.pretraining import SPDPretraining
from anomalib_spd.training.fit import leave_process_group


def run(args: list[str]) -> int:
    """Run ``anomalib-spd pretrain ...``; return its exit status.

    Args:
        args: what follows ``anomalib-spd pretrain``.
    """
    TrainingCLI("pretrain", SPDPretraining, LightningDataModule, args).fit()
    leave_process_group()
    return 0
