"""Lightning's command line as the trainings of this package use it."""

import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pydoc import locate
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from anomalib_spd.config_files import merge_config_files
from anomalib_spd.files import one_line
from anomalib_spd.training.checkpoint import LastCheckpoint
from anomalib_spd.training.fit import fit, ignore_expected_warnings, trainer_options


class TrainingCLI(LightningCLI):
    """Parses a training's file and options, and builds model, data and trainer.

    A run has one checkpoint, ``checkpoints/last.ckpt`` in the trainer's folder, from which the next start of the same
    command resumes. Its logs are beside it.

    Args:
        command: of ``anomalib-spd``.
        model_class: base class of ``model.class_path``.
        data_class: base class of ``data.class_path``.
        args: what follows the command.

    Raises:
        SystemExit: with 2 for wrong usage, which is one line; with 0 after ``--help``.
    """

    def __init__(
        self,
        command: str,
        model_class: type[LightningModule],
        data_class: type[LightningDataModule],
        args: Sequence[str],
    ) -> None:
        ignore_expected_warnings()
        program = f"anomalib-spd {command}"
        try:
            super().__init__(
                model_class,
                data_class,
                subclass_mode_model=True,
                subclass_mode_data=True,
                seed_everything_default=0,
                # else jsonargparse prints all options before what is wrong with one
                parser_kwargs={"prog": program, "exit_on_error": False},
                run=False,
                args=merge_config_files(args),
            )
        except ArgumentError as error:
            print(f"error: {one_line(error)} ('{program} --help all' has all options)", file=sys.stderr)
            raise SystemExit(2) from None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the checkpoint (a hook of ``LightningCLI``)."""
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default="last",
            help="checkpoint to resume from: 'last' is this run's own, if there is one; 'none' begins anew",
        )
        # one checkpoint a run, where the next start of the same command finds it
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.set_defaults({"checkpoint.filename": "last", "checkpoint.enable_version_counter": False})
        self.link_folder(parser)

    def link_folder(self, parser: LightningArgumentParser) -> None:
        """Put checkpoints into the run's folder.

        Args:
            parser: of the command line.
        """
        parser.link_arguments(
            "trainer.default_root_dir",
            "checkpoint.dirpath",
            compute_fn=lambda root: str(Path(root or ".") / "checkpoints"),
        )

    def instantiate_classes(self) -> None:
        """Build model, data and trainer (a hook of ``LightningCLI``)."""
        with _own_errors(self.config.model, self.config.data):
            super().instantiate_classes()

    def build(self, part: str, config: Namespace) -> Any:
        """Return one part of the settings, ``model``, ``data`` or ``trainer``: an object, or the trainer's arguments."""
        with _own_errors(config):
            return self.parser.instantiate_classes(Namespace({part: config}))[part]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the trainer what every training has (a hook of ``LightningCLI``)."""
        given = {**vars(self.config_init.trainer), **kwargs}
        return super().instantiate_trainer(**{**kwargs, **trainer_options(given)})

    def fit(self) -> None:
        """Train to the end, see :func:`~anomalib_spd.training.fit.fit`."""
        config = self.config
        fit(self.trainer, self.model, self.datamodule, Path(config.checkpoint.dirpath), config.ckpt_path)


@contextmanager
def _own_errors(*configs: Namespace) -> Iterator[None]:
    """Raise the errors of constructors as they are: jsonargparse puts them among what else might have stood there.

    Args:
        configs: of classes that are built; what failed is built again without the parser of subclasses.

    Raises:
        ValueError: what a constructor raised, also where that was a ``RuntimeError`` (of timm, for an unknown model).
    """
    try:
        yield
    except ValueError:
        for config in configs:
            if "class_path" in config:
                made: Any = locate(config.class_path)
                parser = ArgumentParser(exit_on_error=False)
                parser.add_class_arguments(made, "it", fail_untyped=False)
                try:
                    parser.instantiate_classes(Namespace(it=config.init_args))
                except RuntimeError as error:
                    raise ValueError(str(error)) from error
        raise
