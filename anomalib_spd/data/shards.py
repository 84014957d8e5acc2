"""Pre-training on images in tar shards, through the webdataset library."""

import io
import logging
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from anomalib_spd.data.images import FAULTY_SHARE, decode, stopped

logger = logging.getLogger(__name__)

_IMAGES = (".jpg", ".jpeg", ".png")


class ImageShards(LightningDataModule):
    """Batches of the images in tar shards, as bytes; augmentation happens on the device, in the training module.

    Members with one name belong together: ``a.jpg`` (or ``.jpeg``, ``.png``) is an image, ``a.cls`` the number of its
    class, 0 where there is none.

    Shards are divided between devices and their worker processes. Each reads its own ones in random order, over and over,
    and shuffles images in a buffer; an epoch ends after ``epoch_images``, so that all devices make as many steps however
    full their shards are. Another epoch begins with other shards.

    A member that cannot be read, or the rest of a truncated shard, is named once in the log, as a warning, and left out.
    A device whose workers meet more such than 1 % of the images they read (or, before they have read that many, of its
    share of ``epoch_images``) stops the run.

    Args:
        urls: of the shards, files or what webdataset opens otherwise; braces are a range (``train-{000..146}.tar``).
        epoch_images: images per epoch, over all devices: the data's own number, or another.
        batch_size: images per step and device.
        side: images leave the loader as ``side x side``, pixels. The views are cut from these, so ``side`` is somewhat
            larger than they are.
        num_workers: processes that decode, per device.
        shuffle_buffer: encoded images that each worker keeps in memory to choose the next from.

    Raises:
        ValueError: for a value out of range.
        ModuleNotFoundError: where webdataset is not installed.
    """

    def __init__(
        self,
        urls: str | list[str],
        epoch_images: int,
        batch_size: int = 32,
        side: int = 256,
        num_workers: int = 2,
        shuffle_buffer: int = 1000,
    ) -> None:
        super().__init__()
        least = {"epoch_images": 1, "batch_size": 1, "side": 1, "num_workers": 0, "shuffle_buffer": 1}
        for name, least_value in least.items():
            if (value := locals()[name]) < least_value:
                raise ValueError(f"{name} must be {least_value} or more, got {value}")
        expand = _webdataset().shardlists.expand_urls
        self.shards = [shard for url in ([urls] if isinstance(urls, str) else urls) for shard in expand(url)]
        self.epoch_images = epoch_images
        self.batch_size = batch_size
        self.side = side
        self.num_workers = num_workers
        self.shuffle_buffer = shuffle_buffer
        self.images: _ShardImages | None = None

    def setup(self, stage: str) -> None:
        """Divide the shards.

        Raises:
            FileNotFoundError: where a shard that is a file does not exist.
            ValueError: where there are fewer shards than processes that read, or ``epoch_images`` are fewer than a batch.
        """
        rank, devices = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        missing = [url for url in self.shards if ":" not in url and not Path(url).is_file()]
        if missing:
            raise FileNotFoundError(f"{len(missing)} of {len(self.shards)} shards do not exist, first {missing[0]}")
        workers = max(1, self.num_workers)
        if len(self.shards) < devices * workers:
            raise ValueError(
                f"{len(self.shards)} shards cannot be divided between {devices} device(s) with {workers} reading "
                "process(es) each; give more shards, or a smaller --data.num_workers."
            )
        batches = self.epoch_images // (self.batch_size * devices)
        if not batches:
            raise ValueError(
                f"epoch_images is {self.epoch_images}, fewer than a batch of {self.batch_size} on {devices} device(s). "
                "Give a smaller --data.batch_size."
            )
        self.images = _ShardImages(
            self.shards[rank::devices], batches, self.batch_size, self.side, workers, self.shuffle_buffer
        )

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return batches, as many on each device."""
        assert self.images is not None, "Lightning calls setup first"
        return DataLoader(
            self.images,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class _ShardImages(IterableDataset[tuple[Tensor, int]]):
    """One device's images, of one epoch each time it is iterated: uint8 ``(3, side, side)`` and class number."""

    def __init__(
        self, shards: Sequence[str], batches: int, batch_size: int, side: int, workers: int, shuffle_buffer: int
    ) -> None:
        self.shards = shards
        self.batches = batches
        self.batch_size = batch_size
        self.side = side
        self.shuffle_buffer = shuffle_buffer
        # read and faulty ones of each worker; each writes its own column, all read the sums
        self._counts = torch.zeros(2, workers, dtype=torch.int64).share_memory_()
        self._named: dict[str, None] = {}

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # whole batches: the loader makes each of one worker's images
        batches = len(range(worker, self.batches, workers))
        return islice(self._endless(list(self.shards[worker::workers]), worker), batches * self.batch_size)

    def _endless(self, shards: list[str], worker: int) -> Iterator[tuple[Tensor, int]]:
        # seeded by Lightning, and another one each epoch
        rng = random.Random(int(torch.randint(2**62, ())))
        shuffle = _webdataset().shuffle(self.shuffle_buffer, rng=rng)
        while True:
            before = int(self._counts[0, worker])
            rng.shuffle(shards)
            for name, sample in shuffle(self._samples(shards, worker)):
                self._counts[0, worker] += 1
                try:
                    image = next(content for key, content in sample.items() if f".{key}".endswith(_IMAGES))
                    yield decode(io.BytesIO(image), self.side), int(sample.get("cls", 0))
                except Exception as error:  # Pillow raises nearly anything for damaged files
                    self._note(name, error, worker)
            if before == self._counts[0, worker]:
                raise ValueError(f"No image ({', '.join(_IMAGES)}) can be read from the shards {', '.join(shards[:3])}")

    def _samples(self, shards: Sequence[str], worker: int) -> Iterator[tuple[str, dict[str, Any]]]:
        wds = _webdataset()
        for shard in shards:
            is_cut = _is_cut(Path(shard))
            if is_cut:
                self._note(shard, EOFError("it is truncated"), worker)
            read = wds.tarfile_to_samples(
                # counted once a reading, whether or not its last member is cut too
                handler=lambda error, shard=shard, is_cut=is_cut: is_cut or self._note(shard, error, worker)
            )
            for sample in wds.DataPipeline(wds.SimpleShardList([shard]), read):
                if any(f".{key}".endswith(_IMAGES) for key in sample):
                    yield f"{shard}: {sample['__key__']}", sample

    def _note(self, name: str, error: Exception, worker: int) -> bool:
        """Count a fault, and return True: to go on."""
        if name not in self._named:
            self._named[name] = None
            logger.warning("%s cannot be read (%s); it is left out", name, error)
        self._counts[1, worker] += 1
        read, faulty = self._counts.sum(1).tolist()
        if faulty > FAULTY_SHARE * max(read, len(self)):
            raise stopped(faulty, f"{read} members", list(self._named)) from error
        return True


def _is_cut(shard: Path) -> bool:
    """Whether a tar file lacks its end, two blocks of zeros: Python's tarfile does not say so."""
    if shard.suffix != ".tar" or not shard.is_file():
        return False
    with shard.open("rb") as file:
        file.seek(max(0, shard.stat().st_size - 1024))
        return file.read() != bytes(1024)


def _webdataset() -> Any:
    try:
        import webdataset
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Shards are read by webdataset, which is not installed: pip install 'anomalib_spd[webdataset]'"
        ) from None
    return webdataset
