"""How fast PatchCore predicts: the network alone, stock's and ours, and what `Engine.predict` spends its time on.

    python speed/prediction.py
    python speed/prediction.py --networks efficientnet_lite0_in1k efficientnet_lite2_in1k:260 wide_resnet50_2.tv_in1k:256:layer2,layer3
    python speed/prediction.py --data FOLDER_OF_IMAGES

Everything is timed in turns, once a round, so that a busy machine slows all alike; medians and ratios within a round are printed.
`--clock cpu` counts the process's CPU time. The memory bank is of random embeddings: its size alone counts.
"""

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from anomalib.models import Patchcore
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torch.utils.data import DataLoader, Dataset

from anomalib_spd.backbones import available
from anomalib_spd.data import Sample
from anomalib_spd.detectors import FastPatchcore
from anomalib_spd.detectors.patchcore import FastPatchcoreModel
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor

LAYERS = ("blocks.2", "blocks.4")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
DETECTORS = {"stock": Patchcore, "ours": FastPatchcore}


class Network(NamedTuple):
    """A backbone, the side of its images in pixels, and the layers that are read."""

    name: str
    size: int
    layers: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Network":
        """Read ``NAME[:SIZE[:LAYER,LAYER]]``."""
        name, _, rest = text.partition(":")
        size, _, layers = rest.partition(":")
        return cls(name, int(size or 256), tuple(layers.split(",")) if layers else LAYERS)

    def detector(self, kind: type[Patchcore], points: int, **kwargs: Any) -> Patchcore:
        """Return a detector with a memory bank of random embeddings."""
        model = kind(
            backbone=self.name,
            layers=[*self.layers],
            pre_trained=self.name in available(),
            pre_processor=BackbonePreProcessor(self.size),
            **kwargs,
        ).eval()
        maps = model.model.feature_extractor(torch.rand(2, 3, self.size, self.size))
        embedding = model.model.reshape_embedding(model.model.generate_embedding(maps))
        chosen = torch.randint(len(embedding), (points,))
        model.model.memory_bank = embedding[chosen] + 0.1 * embedding.std() * torch.randn(points, embedding.shape[1])
        return model


class Parts:
    """Seconds that methods take, by the part that they are counted to; of nested ones the inner is not counted to the outer."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def count(self, owner: object, method: str, part: str) -> None:
        """Count the calls of an object's method to a part."""
        called = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = self.clock()
            result = called(*args, **kwargs)
            taken = self.clock() - start
            self.seconds[part] += taken - self._inner.pop()
            self._inner[-1] += taken
            return result

        object.__setattr__(owner, method, timed)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", type=Network.parse, default=[Network.parse("efficientnet_lite0_spd")])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--points", type=int, default=2000, help="of the memory bank")
    parser.add_argument("--data", type=Path, help="folder of images; by default those of the embedded sample")
    parser.add_argument("--images", type=int, default=64, help="of a prediction; those of the folder come again")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("anomalib").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(
        f"{arguments.threads} threads, {arguments.points} points, {arguments.rounds} rounds, {arguments.clock} clock\n"
    )
    time_networks(arguments)
    time_parts(arguments)


def time_networks(arguments: argparse.Namespace) -> None:
    """Print images a second of the networks alone, and of stock's and our PatchCore on normalized images, all in turns."""
    clock = CLOCKS[arguments.clock]
    detectors = {
        network: {name: network.detector(kind, arguments.points).model for name, kind in DETECTORS.items()}
        for network in arguments.networks
    }
    print(
        "| network, px | batch | encoder alone, images/s | stock | ours | ours / stock | ours / encoder "
        "| time of ours beside the first | bank, MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for batch in arguments.batches:
        turns: dict[tuple[Network, str], Callable[[], object]] = {}
        for network, models in detectors.items():
            images = torch.rand(batch, 3, network.size, network.size)
            encoder = network.detector(Patchcore, 1).model.feature_extractor.to(memory_format=torch.channels_last)
            turns[network, "encoder"] = partial(encoder, images.to(memory_format=torch.channels_last))
            turns |= {(network, name): partial(model, images) for name, model in models.items()}
        with torch.inference_mode():
            times = in_turns(turns, arguments.rounds, clock)
        for network, models in detectors.items():
            kinds = ("encoder", *DETECTORS)
            speeds = " | ".join(f"{batch / statistics.median(times[network, kind]):.1f}" for kind in kinds)
            ours = times[network, "ours"]
            ratios = " | ".join(f"{ratio(times[network, other], ours):.2f}" for other in ("stock", "encoder"))
            beside = ratio(ours, times[arguments.networks[0], "ours"])
            bank = models["ours"].memory_bank
            size = bank.numel() * bank.element_size() / 1e6
            print(
                f"| {network.name}, {network.size} | {batch} | {speeds} | {ratios} | {beside:.2f} | {size:.2f} |",
                flush=True,
            )
    print()


def in_turns(
    turns: dict[tuple[Network, str], Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[tuple[Network, str], list[float]]:
    """Return the seconds of each turn, once a round, after two rounds that are not timed."""
    times: dict[tuple[Network, str], list[float]] = {name: [] for name in turns}
    for number in range(rounds + 2):
        for name, turn in turns.items():
            start = clock()
            turn()
            if number >= 2:
                times[name].append(clock() - start)
    return times


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Return the median ratio of two turns of the same rounds."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def time_parts(arguments: argparse.Namespace) -> None:
    """Print the milliseconds an image that `Engine.predict` spends on each part, of stock's and our PatchCore."""
    network = arguments.networks[0]
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or images_of_the_sample(Path(folder))
        for batch in arguments.batches:
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in DETECTORS}
            for _ in range(max(2, arguments.rounds // 5)):
                for name, kind in DETECTORS.items():
                    runs[name].append(predict(network, kind, data, batch, Path(folder), arguments))
            medians = {
                name: {part: statistics.median(run[part] for run in each) for part in each[0]}
                for name, each in runs.items()
            }
            print(f"`Engine.predict`, {network.name}, {network.size} px, batch {batch}, milliseconds an image:\n")
            print("| part | stock | ours |\n|---|---|---|")
            for part in medians["stock"]:
                print(f"| {part} | {medians['stock'][part]:.1f} | {medians['ours'][part]:.1f} |")
            print(flush=True)


def images_of_the_sample(folder: Path) -> Path:
    """Return the folder of the defective test images that the embedded sample draws."""
    sample = Sample(folder=folder / "sample")
    sample.prepare_data()
    sample.setup()
    return Path(sample.test_data.samples["image_path"].iloc[-1]).parent


def predict(
    network: Network, kind: type[Patchcore], data: Path, batch: int, folder: Path, arguments: argparse.Namespace
) -> dict[str, float]:
    """Return the milliseconds an image of every part of one prediction of a folder."""
    clock = CLOCKS[arguments.clock]
    detector = network.detector(kind, arguments.points, visualizer=False)
    parts = Parts(clock)
    model, dataset = detector.model, PredictDataset(data)
    count_parts(parts, detector, model)
    items = CountedItems(dataset, arguments.images, parts)
    loader: DataLoader[Any] = DataLoader(items, batch, collate_fn=dataset.collate_fn)
    engine = Engine(default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
    start = clock()
    engine.predict(detector, dataloaders=loader)
    total = clock() - start
    seconds = {part: parts.seconds[part] for part in PARTS}
    everything = {**seconds, "the rest, Lightning's start and loops": total - sum(seconds.values()), "in all": total}
    return {part: 1000 * each / len(items) for part, each in everything.items()}


#: in their order
PARTS = (
    "reading the image",
    "resizing and normalizing",
    "backbone",
    "embedding",
    "neighbors",
    "score",
    "map",
    "post-processing",
)


def count_parts(parts: Parts, detector: Patchcore, model: PatchcoreModel) -> None:
    """Count a detector's methods to the parts."""
    parts.count(detector.pre_processor, "on_predict_batch_start", "resizing and normalizing")
    parts.count(detector.post_processor, "on_predict_batch_end", "post-processing")
    # ours has a folded copy of it
    backbone = (
        model._backbone(torch.rand(1, 3, 64, 64)) if isinstance(model, FastPatchcoreModel) else model.feature_extractor
    )
    parts.count(backbone, "forward", "backbone")
    for method in ("generate_embedding", "reshape_embedding"):
        parts.count(model, method, "embedding")
    parts.count(model, "nearest_neighbors", "neighbors")
    parts.count(model, "compute_anomaly_score", "score")
    parts.count(model.feature_pooler, "forward", "embedding")
    # what is left of it
    parts.count(model, "forward", "map")


class CountedItems(Dataset[Any]):
    """A data set whose reading is counted."""

    def __init__(self, dataset: PredictDataset, length: int, parts: Parts) -> None:
        self.read = lambda index: dataset[index % len(dataset)]
        self.length = length
        parts.count(self, "read", "reading the image")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.read(index)


if __name__ == "__main__":
    main()
