"""The command ``anomalib-spd finetune``: normal images in, a registered backbone out."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from anomalib.data import AnomalibDataModule
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from anomalib_spd.backbones import Backbone
from anomalib_spd.cli.training import TrainingCLI
from anomalib_spd.finetuning.run import check_new_name, finetune
from anomalib_spd.training.fit import leave_process_group, listed
from anomalib_spd.training.module import TrainingModule

CATEGORY = "{category}"
#: arguments of the checkpoint that every run has alike
OWN_CHECKPOINT = ("dirpath", "filename", "enable_version_counter")


def run(args: list[str]) -> int:
    """Run ``anomalib-spd finetune ...``; return its exit status.

    Args:
        args: what follows ``anomalib-spd finetune``.
    """
    FinetuneCLI(args).run()
    leave_process_group()
    return 0


class FinetuneCLI(TrainingCLI):
    """Parses a training on the normal images of a data module, or of several of its categories.

    Args:
        args: what follows ``anomalib-spd finetune``; parsed, and nothing is built before :meth:`run`.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self.args = list(args)
        super().__init__("finetune", TrainingModule, AnomalibDataModule, args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the name, and how images are read (a hook of ``LightningCLI``)."""
        parser.add_argument(
            "--name", type=str | None, required=True, help=f"of the backbone; {CATEGORY} stands for the category"
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
        parser.add_argument(
            "--image_size",
            type=int | list[int],
            default=256,
            help="that images are resized to, pixels; [HEIGHT, WIDTH] for long parts",
        )
        parser.add_argument(
            "--holdout",
            type=ClosedUnitInterval,
            default=0.0,
            help="share of images that tell whether the training helps; 0 takes its weights",
        )
        parser.add_argument(
            "--white",
            type=PositiveFloat | None,
            help="value of white of gray images of more than 8 bits: 4095 of 12 bits",
        )
        parser.add_argument("--num_workers", type=NonNegativeInt, default=2, help="processes that decode")
        super().add_arguments_to_parser(parser)

    def link_folder(self, parser: LightningArgumentParser) -> None:
        """Give each name a folder of its own: no run resumes from another's checkpoint."""
        parts = ("folder", "name")
        parser.link_arguments(
            parts, "trainer.default_root_dir", compute_fn=lambda folder, name: str(folder / (name or ""))
        )
        parser.link_arguments(
            parts, "checkpoint.dirpath", compute_fn=lambda folder, name: str(folder / (name or "") / "checkpoints")
        )

    def instantiate_classes(self) -> None:
        """Build nothing yet (a hook of ``LightningCLI``)."""

    def run(self) -> None:
        """Make every backbone that is asked for, once all of their names are checked."""
        command = self.config
        backbones = self.backbones()
        for name in backbones:
            check_new_name(name, command.folder, command.model.init_args.get("backbone"))
        for name, categories in backbones.items():
            self.config, args = command.clone(), self.args
            self.config.name = name
            if len(categories) == 1:  # what is recorded makes this backbone alone
                self.config.categories, self.config.data.init_args.category = None, categories[0]
                args = [*args, "--categories=null", f"--data.init_args.category={categories[0]}", f"--name={name}"]
            if self.make(shlex.join(["anomalib-spd", "finetune", *args])):
                print(f"{name} is in the registry: --model.backbone {name}")

    def backbones(self) -> dict[str, list[str]]:
        """Return the names of the backbones to be made, with the categories of their images, if they have some.

        Raises:
            ValueError: where several backbones would get one name, or a data module has no categories.
        """
        name, categories, data = self.config.name, self.config.categories or [], self.config.data
        if (categories or CATEGORY in name) and "category" not in data.init_args:
            raise ValueError(f"{data.class_path} has no categories: leave them out, and {CATEGORY} in the name")
        if self.config.per == "dataset":
            if CATEGORY in name:
                raise ValueError(f"One backbone for all categories cannot have {CATEGORY} in its name. Got {name!r}.")
            return {name: categories}
        if len(set(categories)) > 1 and CATEGORY not in name:
            raise ValueError(f"Each of {categories} gets a backbone: have {CATEGORY} in the name. Got {name!r}.")
        if not categories and CATEGORY not in name:
            return {name: []}
        return {name.replace(CATEGORY, each): [each] for each in categories or [data.init_args.category]}

    def make(self, command: str) -> Backbone | None:
        """Make one backbone by the settings as they are.

        Args:
            command: that makes it.
        """
        config = self.config
        trainer = vars(self.build("trainer", config.trainer))
        if not trainer["fast_dev_run"]:
            trainer["callbacks"] = [*listed(trainer["callbacks"]), SaveConfigCallback(self.parser, config)]
        return finetune(
            lambda: self.build("model", config.model),
            [self.data_of(each) for each in config.categories or [None]],
            config.name,
            folder=config.folder,
            batch_size=config.batch_size,
            image_size=config.image_size,
            num_workers=config.num_workers,
            holdout=config.holdout,
            white=config.white,
            seed=config.seed_everything,
            checkpoint={key: each for key, each in vars(config.checkpoint).items() if key not in OWN_CHECKPOINT},
            ckpt_path=config.ckpt_path,
            command=command,
            **trainer,
        )

    def data_of(self, category: str | None) -> AnomalibDataModule:
        """Return the data module, or that of another category."""
        data = self.config.data.clone()
        if category is not None:
            data.init_args.category = category
        module: AnomalibDataModule = self.build("data", data)
        return module
