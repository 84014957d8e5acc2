"""The command ``anomalib-spd twoclass``: train and test a model on normal and defective images."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import ValSplitMode
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from anomalib_spd.benchmark import cell as judge
from anomalib_spd.benchmark.recorder import ScoreRecorder
from anomalib_spd.benchmark.results import RECORD, Cell, write
from anomalib_spd.cli.training import TrainingCLI
from anomalib_spd.data.ready import fingerprint, naming_unreadable, set_up
from anomalib_spd.files import atomic_write
from anomalib_spd.report.tables import LABELS
from anomalib_spd.twoclass.base import TwoClassModule

ORIGIN = "run.json"


def run(args: list[str]) -> int:
    """Run ``anomalib-spd twoclass ...``; return its exit status.

    Args:
        args: what follows ``anomalib-spd twoclass``.
    """
    _run(TwoClassCLI("twoclass", TwoClassModule, AnomalibDataModule, args))
    return 0


class TwoClassCLI(TrainingCLI):
    """Parses a training of the model's own length, whose test scores are recorded."""

    model: TwoClassModule
    datamodule: AnomalibDataModule

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the trainer the model's length and the callbacks of a run (a hook of ``LightningCLI``)."""
        self.recorder = ScoreRecorder()
        # held-out training images choose the checkpoint; without them it is the last one: test images never choose
        held_out = self.datamodule.val_split_mode is not ValSplitMode.NONE
        folder = self.config.checkpoint.dirpath
        self.best = ModelCheckpoint(folder, "best", "val_loss", enable_version_counter=False) if held_out else None
        callbacks = [*(self.config_init.trainer.callbacks or []), self.recorder]
        callbacks += [self.best] if self.best else []
        return super().instantiate_trainer(**self.model.trainer_arguments, callbacks=callbacks, **kwargs)

    def plan(self) -> judge.Plan:
        """Return the settings of the run, for its record."""
        config = json.loads(self.parser.dump(self.config, format="json"))
        model, data = config["model"], config["data"]
        backbone = model["init_args"]["backbone"]
        sha256, architecture = judge.weights(backbone)
        return judge.Plan(
            Cell(backbone, type(self.model).__name__, self.datamodule.category, int(self.config.seed_everything)),
            model,
            data,
            weights_sha256=sha256,
            architecture=architecture,
            files_sha256=fingerprint(self.datamodule),
            threads=torch.get_num_threads(),
        )


def _run(cli: TwoClassCLI) -> None:
    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    if trainer.world_size > 1:
        raise ValueError(
            f"A 2-class run takes one device, all test images are judged together. Got {trainer.world_size}."
        )
    if trainer.precision not in ("32-true", "16-mixed", "bf16-mixed"):  # anomalib's images stay in float32
        raise ValueError(
            f"A 2-class run takes --trainer.precision 32-true, 16-mixed or bf16-mixed. Got {trainer.precision}"
        )
    set_up(data, int(cli.config.seed_everything))
    model.check_training_images(data.train_data)
    folder = Path(trainer.default_root_dir)
    plan = cli.plan()
    _claim_folder(folder, plan)
    if drawn := getattr(data, "drawn", []):
        print(f"{len(drawn)} training images drawn:", *drawn)
    model.evaluator = judge.evaluator(model, data)

    start = time.perf_counter()
    with naming_unreadable(data):
        cli.fit()
        fit = time.perf_counter() - start
        chosen = cli.best.best_model_path if cli.best else ""
        trainer.test(model, datamodule=data, ckpt_path=chosen or None, verbose=False, weights_only=True)
    seconds = {"fit": fit, "inference": cli.recorder.seconds, "total": time.perf_counter() - start}
    scores = cli.recorder.scores()
    record = judge.describe(plan, trainer, data, cli.recorder, scores, seconds)
    write(folder, plan.cell, {**record, "checkpoint": Path(chosen or "last.ckpt").name}, scores)
    for name, label in LABELS.items():
        if name in record["metrics"]:
            print(f"{label}: {record['metrics'][name]:.3f}")
    for level, reason in scores.undefined.items():
        print(f"{level} metrics are undefined: {reason}")
    print(f"Figures: {folder / RECORD}; heatmaps: {folder / 'images'}; checkpoints: {folder / 'checkpoints'}")


def _claim_folder(folder: Path, plan: judge.Plan) -> None:
    """Record a run's settings in its folder, or check them: a run must not resume from another's checkpoint."""
    path = folder / ORIGIN
    origin = {"seed": plan.cell.seed, **plan.origin}
    if path.is_file():
        before = json.loads(path.read_text())
        if changed := [key for key, value in origin.items() if before.get(key) != value]:
            raise ValueError(
                f"{folder} holds a run with another {', '.join(changed)}: give another --trainer.default_root_dir, or "
                "remove that folder to start anew"
            )
        return
    with atomic_write(path) as file:
        file.write(json.dumps(origin, indent=2).encode() + b"\n")
