"""Makes the backbones that a grid says how to make, where the registry does not have them."""

import inspect
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

import torch
from anomalib.data import AnomalibDataModule
from lightning.pytorch import Callback

from anomalib_spd import backbones
from anomalib_spd.benchmark.build import Config, build, check
from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.output import output_to
from anomalib_spd.benchmark.runners import Runner
from anomalib_spd.config_files import load_config_files
from anomalib_spd.finetuning.run import finetune
from anomalib_spd.training.module import TrainingModule

FOLDER = "finetune"
#: keys of a training's configuration
KEYS = {"seed_everything", "trainer"} | set(inspect.signature(finetune).parameters) - {
    "name",
    "folder",
    "seed",
    "command",
    "settings",
}


def train(
    grid: Grid,
    results: Path,
    runner: Runner,
    *,
    accelerator: str = "auto",
    threads: int = 1,
    log: Callable[[str], None] = lambda line: None,
) -> None:
    """Fine-tune the backbones of a grid that are missing; those that were interrupted resume.

    What fails is logged, and left to fail in its cells.

    Args:
        grid: what is measured.
        results: folder of results; trainings are in ``finetune`` there, each with a log.
        runner: where.
        accelerator: as Lightning names it.
        threads: of torch on the CPU, for each worker.
        log: takes a line whenever a training has ended.

    Raises:
        ValueError: a configuration is not that of a training, or a registered backbone has the name of one that is to be
            made otherwise.
    """
    queue = []
    for name, options in grid.trainings().items():
        recipe = full_recipe(options, name)
        if name not in backbones.available():
            queue.append((name, recipe))
        elif not backbones.find(name).provenance.has_settings(recipe):
            raise ValueError(
                f"{name!r} is registered, but was not made as the grid says: remove it (anomalib-spd backbones remove "
                f"{name}), or give the grid another name"
            )
    total, running = len(queue), dict[Future[None], str]()
    ended = 0
    while queue or running:
        while queue and len(running) < runner.workers:
            name, recipe = queue.pop(0)
            running[runner.submit(train_one, name, recipe, results / FOLDER, accelerator, threads)] = name
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            name, ended = running.pop(future), ended + 1
            file = results / FOLDER / f"{name}.txt"
            log(f"{ended} of {total} trainings: {name}" + (f" failed, see {file}" if future.exception() else ""))
    backbones.register()  # other processes added them to the registry


def full_recipe(options: Config, where: str) -> Config:
    """Return the configuration of a training: values of files, replaced by those that the grid gives.

    Args:
        options: keys of a configuration, nested or with dots; ``config`` names one file, or several that are merged.
        where: name of the backbone, for errors.

    Raises:
        ValueError: a file cannot be read, a key or an argument is unknown.
    """
    values = dict(options)
    files = values.pop("config", [])
    for key in [key for key in values if key.startswith("model.") and not key.startswith("model.init_args.")]:
        values[key.replace("model.", "model.init_args.", 1)] = values.pop(key)  # short, as on the command line
    try:
        content = load_config_files([files] if isinstance(files, str) else files, values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if unknown := sorted(content.keys() - KEYS):
        raise ValueError(f"{where}: a training has no {', '.join(unknown)}; expected some of {', '.join(sorted(KEYS))}")
    try:
        check(TrainingModule, content.get("model", {}))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return content


def train_one(name: str, recipe: Config, folder: Path, accelerator: str, threads: int) -> None:
    """Run one training in this process, with its output in ``NAME.txt``.

    Args:
        name: of the new backbone.
        recipe: configuration of the training.
        folder: of trainings.
        accelerator: as Lightning names it.
        threads: of torch on the CPU.

    Raises:
        RuntimeError: the training failed; the log has the error.
    """
    torch.set_num_threads(threads)
    arguments = dict(recipe)
    model, data = arguments.pop("model"), arguments.pop("data")
    trainer = {**arguments.pop("trainer", {}), "accelerator": accelerator}
    trainer["callbacks"] = [build(Callback, each) for each in trainer.get("callbacks") or []]
    folder.mkdir(parents=True, exist_ok=True)
    with output_to(folder / f"{name}.txt"):
        try:
            finetune(
                lambda: build(TrainingModule, model),
                [build(AnomalibDataModule, each) for each in data]
                if isinstance(data, list)
                else build(AnomalibDataModule, data),
                name,
                folder=folder,
                seed=arguments.pop("seed_everything"),
                settings=recipe,
                **arguments,
                **trainer,
            )
        except Exception:
            traceback.print_exc()
            raise RuntimeError(f"the training of {name} failed") from None
