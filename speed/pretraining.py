"""How fast pre-training is: beside its encoder alone, beside lightly, beside the method without SPD, and part by part.

    python speed/pretraining.py --data FOLDER_OF_IMAGES
    python speed/pretraining.py --data FOLDER_OF_IMAGES --methods simsiam moco simclr supervised
    python speed/pretraining.py --data FOLDER_OF_IMAGES --precision bf16-mixed --formats

Runs on the GPU where there is one. Everything is timed in turns, once a round, each turn a training of its own by Lightning's
trainer, of which the first steps are not timed, so that a busy machine slows all alike. What is printed are medians over
rounds; ratios are taken within a round. Besides its own steps, a turn's loader has at most two batches ready when the clock
starts, which is to the advantage of whom the loader slows. 128 views of 224 px need 11 GB: give a smaller `--batch`.
"""

import argparse
import gc
import logging
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import timm
import torch
from lightly_simsiam import LightlySimSiam, lightly_loader
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from anomalib_spd.data import ImageFolder
from anomalib_spd.pretraining import MoCoSPD, SimCLRSPD, SimSiamSPD, SupervisedSPD

#: views with a gradient, and without one
METHODS: dict[str, tuple[type[LightningModule], int, int]] = {
    "simsiam": (SimSiamSPD, 5, 0),
    "moco": (MoCoSPD, 4, 1),
    "simclr": (SimCLRSPD, 5, 0),
    "supervised": (SupervisedSPD, 4, 0),
}
NAMES = {"simsiam": "SimSiam", "moco": "MoCo v2", "simclr": "SimCLR", "supervised": "supervised"}
PLAIN, LIGHTLY = "SimSiam without SPD", "lightly's SimSiam"


@dataclass(frozen=True)
class Turn:
    """What was timed: seconds a step, and how many cores the main process kept busy."""

    seconds: float
    busy: float


class PlainSimSiam(SimSiamSPD):
    """SimSiam without the views of SPD, which ``eta = 0`` makes and passes all the same."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return SimSiam's loss of two views."""
        images, labels = batch
        with torch.no_grad():
            views = self.method_views(images)
        z = self.projector(self.encode(self.encoder, views))
        return self.method_loss(list(z.split(len(images))), images, labels)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of images")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["simsiam"])
    parser.add_argument("--backbone", default="efficientnet_lite0_in1k")
    parser.add_argument("--image-size", type=int, default=224, help="side of the views, pixels")
    parser.add_argument("--decoded-size", type=int, help="side of the images, pixels; by default 8/7 of the views'")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=1, help="processes that decode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="that are timed in each turn")
    parser.add_argument("--warm-up", type=int, default=2, help="steps of each turn before")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument(
        "--formats", action="store_true", help="time the encoder in bfloat16, and without channels_last"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    arguments.decoded_size = arguments.decoded_size or round(arguments.image_size * 8 / 7)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    on_gpu = arguments.device == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine()
    print(
        f"{arguments.device} ({name}), {arguments.threads} of {os.cpu_count()} threads, {arguments.workers} worker(s)"
    )
    print(f"torch {torch.__version__}, THP_MEM_ALLOC_ENABLE={os.environ.get('THP_MEM_ALLOC_ENABLE', 'unset')}")
    print(
        f"{arguments.backbone}, batch {arguments.batch}, views of {arguments.image_size} px from images of "
        f"{arguments.decoded_size} px, {arguments.precision}"
    )
    models = {f"{NAMES[each]} + SPD": method(each, arguments) for each in arguments.methods}
    compare(models, arguments)
    for title, model in models.items():
        print(f"\nWhere a step of {title} goes, each part finished before the next begins\n")
        parts(model, arguments)
    if arguments.formats:
        print("\nThe encoder's forward and backward in other formats\n")
        formats(arguments)


def method(name: str, arguments: argparse.Namespace, kind: type[LightningModule] | None = None) -> LightningModule:
    """Make a method's module, from scratch: weights do not change the time."""
    return (kind or METHODS[name][0])(
        backbone=arguments.backbone, pretrained=False, image_size=arguments.image_size, learning_rate=1e-4
    )


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Stopwatch(Callback):
    """Times the steps of a training that follow the first ones."""

    def __init__(self, warm_up: int, steps: int) -> None:
        self.warm_up = warm_up
        self.steps = steps
        self.turn = Turn(0.0, 0.0)
        self._start = (0.0, 0.0)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Start and stop the watch (a Lightning hook)."""
        if trainer.global_step not in (self.warm_up, self.warm_up + self.steps):
            return
        synchronise()
        now = time.perf_counter(), time.process_time()
        seconds, busy = (end - start for end, start in zip(now, self._start, strict=True))
        self._start = now
        self.turn = Turn(seconds / self.steps, busy / seconds)


def train(
    model: LightningModule, data: LightningDataModule | DataLoader[Any], arguments: Any, *watch: Callback
) -> None:
    """Train for the steps of a turn, by Lightning's trainer."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="gpu" if arguments.device == "cuda" else "cpu",
            devices=1,
            precision=arguments.precision,
            max_epochs=-1,
            max_steps=arguments.warm_up + arguments.steps,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[*watch],
        )
        trainer.fit(model, data)
    # the workers of a loader end with it; they are not to work in another's turn
    del trainer
    gc.collect()


def folder_of(arguments: argparse.Namespace) -> ImageFolder:
    """Return the images as a training reads them."""
    return ImageFolder(arguments.data, arguments.batch, arguments.decoded_size, arguments.workers)


def training_turn(model: LightningModule, data: Callable[[], Any], arguments: argparse.Namespace) -> Turn:
    """Time a training from the files to the optimiser."""
    watch = Stopwatch(arguments.warm_up, arguments.steps)
    train(model, data(), arguments, watch)
    return watch.turn


def encoder_turn(
    encoder: nn.Module, with_gradient: Tensor, without: Tensor | None, dtype: torch.dtype, arguments: argparse.Namespace
) -> Turn:
    """Time forward and backward of views ``(V * B, 3, size, size)``, and forward of those without a gradient."""
    start = 0.0, 0.0
    for number in range(arguments.warm_up + arguments.steps):
        if number == arguments.warm_up:
            synchronise()
            start = time.perf_counter(), time.process_time()
        with torch.autocast(arguments.device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            if without is not None:
                with torch.no_grad():
                    encoder(without)
            features = encoder(with_gradient)
        features.float().sum().backward()
        encoder.zero_grad(set_to_none=True)
    synchronise()
    seconds, busy = time.perf_counter() - start[0], time.process_time() - start[1]
    return Turn(seconds / arguments.steps, busy / seconds)


def compare(models: dict[str, LightningModule], arguments: argparse.Namespace) -> None:
    """Time the trainings, their encoder alone, SimSiam without SPD, and lightly's."""
    encoder = encoder_of(arguments)
    dtype = torch.bfloat16 if arguments.precision == "bf16-mixed" else torch.float32
    turns: dict[str, Callable[[], Turn]] = {}
    views: dict[str, int] = {}
    # what is told, whose seconds by whose, times what, and the aim
    ratios: list[tuple[str, str, str, float, str]] = []
    for each, (title, model) in zip(arguments.methods, models.items(), strict=True):
        with_gradient, without = METHODS[each][1:]
        alone = f"encoder alone, {with_gradient} views" + (f" and {without} without gradient" if without else "")
        inputs = random_views(with_gradient, arguments), random_views(without, arguments) if without else None
        turns[alone] = partial(encoder_turn, encoder, *inputs, dtype, arguments)
        turns[title] = partial(training_turn, model, partial(folder_of, arguments), arguments)
        views |= dict.fromkeys((alone, title), with_gradient + without)
        ratios.append((f"speed of {title}, of its encoder's", alone, title, 1, "0.85 or more"))
    if "simsiam" in arguments.methods:
        spd = f"{NAMES['simsiam']} + SPD"
        plain = method("simsiam", arguments, PlainSimSiam)
        turns[PLAIN], views[PLAIN] = partial(training_turn, plain, partial(folder_of, arguments), arguments), 2
        ratios.append((f"a step of {spd}, of {PLAIN}", spd, PLAIN, 1, "2.625 or less"))
        if find_spec("lightly"):
            theirs = LightlySimSiam(encoder_of(arguments))
            loader = partial(lightly_loader, arguments.data, arguments.image_size, arguments.batch, arguments.workers)
            turns[LIGHTLY], views[LIGHTLY] = partial(training_turn, theirs, loader, arguments), 2
            ratios += [
                (f"views/s of {ours}, of {LIGHTLY}", LIGHTLY, ours, views[ours] / 2, "1 or more")
                for ours in (spd, PLAIN)
            ]
        else:
            print("\nlightly is not installed and is left out: pip install lightly")

    rounds = [{name: turn() for name, turn in turns.items()} for _ in range(arguments.rounds)]
    print(f"\n{arguments.rounds} rounds of {arguments.steps} steps\n")
    print("| | views | s a step | images/s | views/s | cores busy |\n|---|---|---|---|---|---|")
    for name in turns:
        seconds, busy = (
            statistics.median(getattr(each[name], what) for each in rounds) for what in ("seconds", "busy")
        )
        images = arguments.batch / seconds
        print(f"| {name} | {views[name]} | {seconds:.3f} | {images:.2f} | {images * views[name]:.1f} | {busy:.2f} |")
    print("\n| | ratio | of rounds | aim |\n|---|---|---|---|")
    for what, above, below, factor, aim in ratios:
        all_rounds = sorted(factor * one[above].seconds / one[below].seconds for one in rounds)
        span = f"{all_rounds[0]:.3f} to {all_rounds[-1]:.3f}"
        print(f"| {what} | {statistics.median(all_rounds):.3f} | {span} | {aim} |")


def encoder_of(arguments: argparse.Namespace) -> Any:
    """Return the encoder, channels last, on the device."""
    encoder: nn.Module = timm.create_model(arguments.backbone, num_classes=0)
    return encoder.to(arguments.device).to(memory_format=torch.channels_last)


def random_views(count: int, arguments: argparse.Namespace) -> Tensor:
    """Return noise ``(count * batch, 3, size, size)``, channels last, on the device."""
    size = arguments.image_size
    views = torch.randn(count * arguments.batch, 3, size, size, device=arguments.device)
    return views.to(memory_format=torch.channels_last)


class Parts(Callback):
    """Adds up the seconds that the parts of a step take, each waited for."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._last = 0.0

    def _lap(self, part: str) -> None:
        synchronise()
        now = time.perf_counter()
        if self.warm_up == 0:
            self.seconds[part] += now - self._last
        self._last = now

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time what has no hook of its own (a Lightning hook)."""
        for name, before, part in (
            ("on_after_batch_transfer", "waiting for the loader, transfer", "bytes to floats"),
            ("views", "heads, losses, the rest", "augmentation"),
            ("encode", "heads, losses, the rest", "normalisation, encoder forward"),
        ):
            setattr(pl_module, name, partial(self._timed, getattr(pl_module, name), before, part))

    def _timed(self, call: Callable[..., Any], before: str, part: str, *given: Any, **named: Any) -> Any:
        self._lap(before)
        result = call(*given, **named)
        self._lap(part)
        return result

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """End the losses (a Lightning hook)."""
        self._lap("heads, losses, the rest")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the backward pass (a Lightning hook)."""
        self._lap("backward")

    def on_train_batch_end(self, *_: Any) -> None:
        """End the step (a Lightning hook)."""
        self._lap("optimiser, logging")
        self.warm_up = max(self.warm_up - 1, 0)


def parts(model: LightningModule, arguments: argparse.Namespace) -> None:
    """Time the parts of a step."""
    watch = Parts(arguments.warm_up)
    train(model, folder_of(arguments), arguments, watch)
    total = sum(watch.seconds.values())
    print("| | ms | share |\n|---|---|---|")
    for part, seconds in sorted(watch.seconds.items(), key=lambda item: -item[1]):
        print(f"| {part} | {seconds * 1e3 / arguments.steps:.1f} | {seconds / total:.1%} |")


def formats(arguments: argparse.Namespace) -> None:
    """Time the encoder with and without bfloat16 and channels_last."""
    last, contiguous = encoder_of(arguments), encoder_of(arguments).to(memory_format=torch.contiguous_format)
    inputs = random_views(5, arguments)
    turns = {
        f"{str(dtype).removeprefix('torch.')}, {layout}": partial(
            encoder_turn, encoder, inputs.contiguous(memory_format=layout_of), None, dtype, arguments
        )
        for dtype in (torch.float32, torch.bfloat16)
        for layout, encoder, layout_of in (
            ("channels_last", last, torch.channels_last),
            ("contiguous", contiguous, torch.contiguous_format),
        )
    }
    rounds = [{name: turn().seconds for name, turn in turns.items()} for _ in range(arguments.rounds)]
    print("| | s a step | x faster than float32, channels_last |\n|---|---|---|")
    for name in turns:
        faster = statistics.median(each["float32, channels_last"] / each[name] for each in rounds)
        print(f"| {name} | {statistics.median(each[name] for each in rounds):.3f} | {faster:.2f} |")


if __name__ == "__main__":
    main()
