"""How fast CutSwap fine-tuning is: what its negatives add to a step, and beside CutPaste made image by image.

    python speed/finetuning.py --data FOLDER_OF_GOOD_PARTS
    python speed/finetuning.py --data FOLDER --backbone resnet18 --precision bf16-mixed

Runs on the GPU where there is one. Everything is timed in turns, once a round, each turn a training of its own by Lightning's
trainer, or a loader of its own, of which the first batches are not timed, so that a busy machine slows all alike. What is
printed are medians over rounds; ratios are taken within a round. The maps of all images are computed before, but for the table
about that. Both sides have as many processes that decode; on a CPU they share its cores with the training. `--precision` is ours alone:
the pipeline that makes CutPaste image by image trains as the public re-implementations do, in float32 and PyTorch's layout. The GPU is
waited for after each step. 96 inputs of 256 px need 11 GB: give a smaller `--batch`.
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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from finetuning_clocks import BACKWARD, FORWARD, NEGATIVES, REST, Parts, Stopwatch, Turn
from lightning.pytorch import LightningModule
from pil_cutpaste import WAYS, PerImageCutPaste, pil_loader
from pretraining import synchronise, train
from torch import Tensor
from torch.utils.data import DataLoader

from anomalib_spd.data.images import ImageBatches
from anomalib_spd.data.index import ImageIndex
from anomalib_spd.finetuning import PatchClassification

SWAP, PASTE, PER_IMAGE = "CutSwap, ours", "CutPaste, ours", "CutPaste, image by image"
NETWORK, PLAIN_NETWORK = "encoder, head and optimiser alone, ours", "encoder, head and optimiser alone, theirs"
DECODING, IN_MEMORY = "decoding alone, ours", "CutPaste, image by image, of images in memory"


class Pictures(ImageBatches):
    """Batches of the first images of a folder, as a fine-tuning reads them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments.batch, arguments.image_size, arguments.workers, keep_aspect=False)
        self.files = files_of(arguments)

    def list_images(self) -> tuple[ImageIndex, str]:
        """Return the images."""
        return ImageIndex.of_files(self.files), "--data"


def files_of(arguments: argparse.Namespace) -> list[Path]:
    """Return the files of the images."""
    index = ImageIndex.of(arguments.data)
    return [index[number] for number in range(min(arguments.images or len(index), len(index)))]


def loader_of(arguments: argparse.Namespace) -> DataLoader[Any]:
    """Return batches of bytes."""
    data = Pictures(arguments)
    data.setup("fit")
    return data.train_dataloader()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of images")
    parser.add_argument("--images", type=int, help="how many of them; by default all")
    parser.add_argument("--backbone", default="efficientnet_lite0_in1k")
    parser.add_argument("--classifier", default="efficientnet_lite0_in1k", help="whose maps guide the swaps")
    parser.add_argument("--image-size", type=int, default=256, help="of the images, pixels")
    parser.add_argument("--batch", type=int, default=32, help=f"images a step, of which {WAYS} times as many inputs")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that decode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of a training that are timed in each turn")
    parser.add_argument("--batches", type=int, default=12, help="of a loader that are timed in each turn")
    parser.add_argument("--warm-up", type=int, default=2, help="steps or batches of each turn before")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    name = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or platform.machine()
    threads = f"{arguments.threads} of {os.cpu_count()} threads"
    print(f"{arguments.device} ({name}), {threads}, {arguments.workers} worker(s)")
    print(f"torch {torch.__version__}, THP_MEM_ALLOC_ENABLE={os.environ.get('THP_MEM_ALLOC_ENABLE', 'unset')}")
    inputs = f"batch {arguments.batch}, {WAYS * arguments.batch} inputs of {arguments.image_size} px"
    print(f"{arguments.backbone}, {inputs}, {len(files_of(arguments))} images, {arguments.precision}")
    with tempfile.TemporaryDirectory() as folder:
        swap, paste = method("swap", folder, arguments), method("paste", folder, arguments)
        print(f"\nThe saliency of a batch, median of {arguments.rounds} rounds\n")
        maps(swap, arguments)
        keep_maps(swap, arguments)
        print(f"\nWhere a step goes, each part finished before the next begins, {arguments.rounds} rounds\n")
        parts({"CutSwap": swap, "CutPaste": paste}, arguments)
        print(f"\nFrom files to trained weights, {arguments.rounds} rounds of {arguments.steps} steps\n")
        trainings(swap, paste, arguments)
        print(f"\nFrom files to normalised inputs, {arguments.rounds} rounds of {arguments.batches} batches\n")
        pipelines(swap, paste, arguments)


def method(operation: Any, folder: str, arguments: argparse.Namespace) -> PatchClassification:
    """Make the training, of which the encoder is trained from the first step; its weights do not change the time."""
    return PatchClassification(
        arguments.backbone,
        pretrained=False,
        operation=operation,
        ways=3,
        classifier=arguments.classifier,
        frozen_steps=0,
        saliency_cache=folder,
    )


def on_device(model: PatchClassification, arguments: argparse.Namespace) -> None:
    """Take a training to the device, as Lightning does: between its trainings it is on the CPU."""
    model.to(arguments.device)
    if model.saliency is not None:
        model.saliency.cam.model.to(arguments.device)


def to_floats(batch: list[Tensor], device: str) -> Tensor:
    """Return the images of a batch in ``[0, 1]``, on the device."""
    return batch[0].to(device, non_blocking=True).float() / 255


def maps(model: PatchClassification, arguments: argparse.Namespace) -> None:
    """Time the maps of a batch, before and after they are kept, beside a step of their classifier."""
    on_device(model, arguments)
    cache: Any = model.saliency
    images = model.normalize(to_floats(next(iter(loader_of(arguments))), arguments.device))
    classifier, folder = cache.cam.model, cache.folder

    def step() -> None:
        classifier.zero_grad(set_to_none=True)
        classifier(images).amax(1).sum().backward()

    cold, warm, alone, theirs = "computed and kept", "kept from before", "computed alone", "a step of the classifier"
    turns: dict[str, Callable[[], object]] = {cold: partial(cache, images), warm: partial(cache, images)}
    turns |= {alone: partial(cache.cam, images), theirs: step}
    rounds = []
    for _ in range(arguments.rounds + 1):
        with tempfile.TemporaryDirectory() as empty:
            cache.folder = Path(empty)
            rounds.append({name: seconds_of(call) for name, call in turns.items()})
    del rounds[0]  # the warm-up
    cache.folder = folder
    classifier.zero_grad(set_to_none=True)
    print(f"| | ms an image | of {theirs} | of rounds | aim |\n|---|---|---|---|---|")
    for name in turns:
        milliseconds = statistics.median(each[name] for each in rounds) * 1e3 / arguments.batch
        of_step = sorted(each[name] / each[theirs] for each in rounds)
        aim = "1 or less, once" if name == cold else ""
        print(f"| {name} | {milliseconds:.2f} | {statistics.median(of_step):.3f} | {span(of_step)} | {aim} |")


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    synchronise()
    start = time.perf_counter()
    call()
    synchronise()
    return time.perf_counter() - start


def keep_maps(model: PatchClassification, arguments: argparse.Namespace) -> None:
    """Look at every image once."""
    on_device(model, arguments)
    data = Pictures(arguments)
    data.setup("fit")
    assert data.images is not None, "setup lists them"
    for batch in DataLoader(data.images, arguments.batch, num_workers=arguments.workers):
        model.saliency(model.normalize(to_floats(batch, arguments.device)))  # type: ignore[misc]


def parts(models: dict[str, PatchClassification], arguments: argparse.Namespace) -> None:
    """Time the parts of steps."""
    steps: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for _ in range(arguments.rounds):
        for name, model in models.items():
            watch = Parts(arguments.warm_up)
            train(model, Pictures(arguments), arguments, watch)
            steps[name] += watch.timed()
    # what is waited for is no part of the step here, so that shares are not too small
    names = [*NEGATIVES, FORWARD, BACKWARD, REST]
    print("| | " + " | ".join(f"{each}, ms | share" for each in models) + " |\n|---|" + "---|---|" * len(models))
    shares = {}
    for title, included in [(each, [each]) for each in names] + [("saliency and negatives", list(NEGATIVES))]:
        cells = []
        for name, timed in steps.items():
            seconds = [sum(step[each] for each in included) for step in timed]
            of_step = [part / sum(step[each] for each in names) for part, step in zip(seconds, timed, strict=True)]
            shares[name] = statistics.median(of_step), span(sorted(of_step), "%")
            cells.append(f"{statistics.median(seconds) * 1e3:.1f} | {shares[name][0]:.1%}")
        print(f"| {title} | {' | '.join(cells)} |")
    print("\n| | share of a step | of steps | aim |\n|---|---|---|---|")
    for name, (share, spread) in shares.items():
        print(f"| saliency and negatives of {name} | {share:.1%} | {spread} | 15% or less |")


def span(values: list[float], unit: str = "") -> str:
    """Return the ends of ascending values."""
    return " to ".join(f"{value:.1%}" if unit else f"{value:.3f}" for value in (values[0], values[-1]))


def trainings(swap: PatchClassification, paste: PatchClassification, arguments: argparse.Namespace) -> None:
    """Time the trainings from the files to the optimiser, and the network's part of them."""
    theirs, network = PerImageCutPaste(arguments.backbone), PerImageCutPaste(arguments.backbone, channels_last=True)
    plain = argparse.Namespace(**vars(arguments) | {"precision": "32-true"})
    noise = list(torch.randn(WAYS, arguments.batch, 3, arguments.image_size, arguments.image_size))
    batches: Any = [noise] * (arguments.warm_up + arguments.steps)
    turns: dict[str, Callable[[], Turn]] = {
        name: partial(training_turn, model, data, how)
        for name, model, data, how in (
            (PLAIN_NETWORK, theirs, lambda: DataLoader(batches, batch_size=None), plain),
            (NETWORK, network, lambda: DataLoader(batches, batch_size=None), arguments),
            (SWAP, swap, partial(Pictures, arguments), arguments),
            (PASTE, paste, partial(Pictures, arguments), arguments),
            (PER_IMAGE, theirs, partial(per_image, arguments), plain),
        )
    }
    aims = {SWAP: "3 or more", PASTE: "3 or more", NETWORK: "the most there can be", PLAIN_NETWORK: ""}
    compare(turns, aims, arguments)


def per_image(arguments: argparse.Namespace, in_memory: bool = False) -> DataLoader[Any]:
    """Return batches as the public re-implementations make them."""
    return pil_loader(files_of(arguments), arguments.image_size, arguments.batch, arguments.workers, in_memory)


def training_turn(model: LightningModule, data: Callable[[], Any], arguments: argparse.Namespace) -> Turn:
    """Time a training."""
    watch = Stopwatch(arguments.warm_up)
    train(model, data(), arguments, watch)
    return watch.turn()


def pipelines(swap: PatchClassification, paste: PatchClassification, arguments: argparse.Namespace) -> None:
    """Time all but the network: inputs on the device."""

    def inputs(model: Any, batch: list[Tensor]) -> Tensor:
        views = torch.cat(model.views(to_floats(batch, arguments.device)))
        normalised: Tensor = model.normalize(views)
        return normalised.contiguous(memory_format=torch.channels_last)

    def to_device(batch: list[Tensor]) -> Tensor:
        images = torch.cat([each.to(arguments.device, non_blocking=True) for each in batch])
        return images.contiguous(memory_format=torch.channels_last)

    for model in (swap, paste):
        on_device(model, arguments)
    bytes_of, pil, in_memory = (partial(each, arguments) for each in (loader_of, per_image, per_image))
    turns: dict[str, Callable[[], Turn]] = {
        DECODING: partial(pipeline_turn, bytes_of, lambda batch: to_floats(batch, arguments.device), arguments),
        SWAP: partial(pipeline_turn, bytes_of, partial(inputs, swap), arguments),
        PASTE: partial(pipeline_turn, bytes_of, partial(inputs, paste), arguments),
        PER_IMAGE: partial(pipeline_turn, pil, to_device, arguments),
        IN_MEMORY: partial(pipeline_turn, partial(in_memory, in_memory=True), to_device, arguments),
    }
    compare(turns, {SWAP: "3 or more", PASTE: "3 or more", DECODING: "the most there can be", IN_MEMORY: ""}, arguments)


def pipeline_turn(
    loader: Callable[[], DataLoader[Any]], change: Callable[[list[Tensor]], Tensor], arguments: argparse.Namespace
) -> Turn:
    """Time a loader, and what is done on the device to what it gives."""
    batches = endless(loader())
    waiting = start = 0.0
    for number in range(arguments.warm_up + arguments.batches):
        if number == arguments.warm_up:
            waiting, start = 0.0, time.perf_counter()
        asked = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - asked
        change(batch)
        synchronise()
    seconds = time.perf_counter() - start
    # the workers end with their loader; they are not to work in another's turn
    del batches
    gc.collect()
    return Turn(seconds / arguments.batches, waiting / arguments.batches)


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield batches, epoch after epoch."""
    while True:
        yield from loader


def compare(turns: dict[str, Callable[[], Turn]], aims: dict[str, str], arguments: argparse.Namespace) -> None:
    """Print what turns take, what bounds them, and how much faster they are than images one by one."""
    rounds = [{name: turn() for name, turn in turns.items()} for _ in range(arguments.rounds)]
    print("| | s a batch | images/s | waiting for the loader | bound by |\n|---|---|---|---|---|")
    for name in turns:
        seconds = statistics.median(each[name].seconds for each in rounds)
        waiting = statistics.median(each[name].waiting / each[name].seconds for each in rounds)
        bound = "the loader" if waiting > 0.5 else "the step"
        print(f"| {name} | {seconds:.3f} | {arguments.batch / seconds:.2f} | {waiting:.1%} | {bound} |")
    print(f"\n| images/s, of those of {PER_IMAGE} | ratio | of rounds | aim |\n|---|---|---|---|")
    for name in aims:
        ratios = sorted(each[PER_IMAGE].seconds / each[name].seconds for each in rounds)
        print(f"| {name} | {statistics.median(ratios):.3f} | {span(ratios)} | {aims[name]} |")


if __name__ == "__main__":
    main()
