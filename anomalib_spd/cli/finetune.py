"""The command ``anomalib-spd finetune``: normal images in, a backbone on the shelf out."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from anomalib.data import AnomalibDataModule
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from anomalib_spd import backbones
from anomalib_spd.backbones.placing import check_name
from anomalib_spd.benchmark.grid import build_data, reason
from anomalib_spd.cli.training import TrainingCLI, leave_processes
from anomalib_spd.data.normal_batches import NormalBatches
from anomalib_spd.files import sha256_of
from anomalib_spd.training.module import TrainingModule

CATEGORY = "{category}"


def run(args: list[str]) -> int:
    """Run ``anomalib-spd finetune ...``; returns its exit status: 0, or 1 where it could not be carried out.

    Args:
        args: what follows ``anomalib-spd finetune``.
    """
    try:
        for one in FinetuneCLI(args).each():
            _run(FinetuneCLI(one))
        leave_processes()
    except (ValueError, OSError, ModuleNotFoundError, FloatingPointError) as error:
        print("error:", reason(error), file=sys.stderr)
        return 1
    return 0


class FinetuneCLI(TrainingCLI):
    """A training on the normal images of a data module, or of several, whose encoder gets a name.

    Args:
        args: what follows ``anomalib-spd finetune``; parsed, and nothing built before :meth:`build`.
    """

    datamodule: NormalBatches

    def __init__(self, args: Sequence[str]) -> None:
        self.args = list(args)
        super().__init__("finetune", TrainingModule, AnomalibDataModule, args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the name, and how images are read (a hook of ``LightningCLI``)."""
        parser.add_argument(
            "--name", type=str, required=True, help=f"of the backbone; {CATEGORY} stands for the category"
        )
        parser.add_argument("--categories", type=list[str] | None, help="of the data module; by default its own one")
        parser.add_argument(
            "--per",
            type=Literal["category", "dataset"],
            default="category",
            help="one backbone for each category, or one for all of them",
        )
        parser.add_argument("--folder", type=Path, default=Path("runs/finetune"), help="of runs, one folder a name")
        parser.add_argument("--batch_size", type=PositiveInt, default=32, help="images a step; each has its negatives")
        parser.add_argument("--side", type=PositiveInt, default=256, help="that images are stretched to, pixels")
        parser.add_argument("--num_workers", type=NonNegativeInt, default=2, help="processes that decode")
        super().add_arguments_to_parser(parser)

    def link_folder(self, parser: LightningArgumentParser) -> None:
        """Give each name a folder of its own: no run is to go on from another's checkpoint."""
        parts = ("folder", "name")
        parser.link_arguments(parts, "trainer.default_root_dir", compute_fn=lambda *parts: str(Path(*parts)))
        parser.link_arguments(parts, "checkpoint.dirpath", compute_fn=lambda *parts: str(Path(*parts, "checkpoints")))

    def each(self) -> list[list[str]]:
        """Return the arguments of every training that is asked for.

        Raises:
            ValueError: where several backbones would get one name, or a data module has no categories.
        """
        name, categories, of_data = self.config.name, self.config.categories, self.config.data.init_args
        if (categories or CATEGORY in name) and "category" not in of_data:
            raise ValueError(
                f"{self.config.data.class_path} has no categories: leave them out, and {CATEGORY} in the name"
            )
        if self.config.per == "dataset":
            if CATEGORY in name:
                raise ValueError(f"One backbone for all categories cannot have {CATEGORY} in its name. Got {name!r}.")
            return [self.args]
        if categories and len(set(categories)) > 1 and CATEGORY not in name:
            raise ValueError(f"Each of {categories} gets a backbone: have {CATEGORY} in the name. Got {name!r}.")
        if not categories and CATEGORY not in name:
            return [self.args]
        return [
            [
                *self.args,
                "--categories=null",
                f"--data.init_args.category={each}",
                f"--name={name.replace(CATEGORY, each)}",
            ]
            for each in categories or [of_data.category]
        ]

    def instantiate_classes(self) -> None:
        """Build nothing yet (a hook of ``LightningCLI``)."""

    def build(self) -> None:
        """Build model, data and trainer."""
        super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Take the normal images of the data modules (a hook of ``LightningCLI``)."""
        config = self.config
        modules: Any = self.datamodule if config.categories is None else [self._of(each) for each in config.categories]
        self.datamodule = NormalBatches(modules, config.batch_size, config.side, config.num_workers, stretch=True)
        return super().instantiate_trainer(**kwargs)

    def _of(self, category: str) -> AnomalibDataModule:
        """Return the data module of another category."""
        data = json.loads(self.parser.dump(self.config, format="json"))["data"]
        return build_data({**data, "init_args": {**data["init_args"], "category": category}})


def _run(cli: FinetuneCLI) -> None:
    name, checkpoint = cli.config.name, Path(cli.config.checkpoint.dirpath) / "last.ckpt"
    on_shelf = name in backbones.available() and _made_of(name, checkpoint)
    if not on_shelf:
        check_name(name)  # before hours of training
    cli.build()
    trainer: Any = cli.trainer
    cli.fit()  # or find that all is done, or that the checkpoint is of another run
    if trainer.fast_dev_run or not trainer.is_global_zero:  # one of several processes names it
        return
    if not on_shelf:
        images = cli.datamodule.images
        assert images is not None, "the training had some"
        backbones.add(
            name,
            checkpoint,
            data=f"{len(images)} normal training images of {cli.datamodule.title}",
            command=shlex.join(["anomalib-spd", "finetune", *cli.args]),
        )
    elif not _made_of(name, checkpoint):
        msg = (
            f"The training went on, but the name {name!r} is taken by what it was: anomalib-spd backbones remove {name}"
        )
        raise ValueError(f"{msg}, and give the same command again")
    print(f"{name} is on the shelf: --model.backbone {name}")


def _made_of(name: str, checkpoint: Path) -> bool:
    """Whether a backbone on the shelf was made of a checkpoint."""
    return checkpoint.is_file() and sha256_of(checkpoint) in backbones.find(name).provenance.checkpoint
