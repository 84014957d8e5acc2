"""The command ``anomalib-spd pretrain``: images in, a checkpoint of a backbone out."""

from lightning.pytorch import LightningDataModule

from anomalib_spd.cli.training import TrainingCLI
from anomalib_spd.training.fit import leave_process_group
from anomalib_spd.training.module import TrainingModule


def run(args: list[str]) -> int:
    """Run ``anomalib-spd pretrain ...``; return its exit status.

    Args:
        args: what follows ``anomalib-spd pretrain``.
    """
    TrainingCLI("pretrain", TrainingModule, LightningDataModule, args).fit()
    leave_process_group()
    return 0
