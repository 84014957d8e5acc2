"""Batches of the images in tar shards, for pre-training; the webdataset library reads them."""

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

from anomalib_spd.data.image_files import check_white
from anomalib_spd.data.images import MAX_UNREADABLE, decode, too_many_unreadable
from anomalib_spd.data.run_settings import check_same_run
from anomalib_spd.files import digest, is_system_entry

logger = logging.getLogger(__name__)

_IMAGES = (".jpg", ".jpeg", ".png")


class ImageShards(LightningDataModule):
    """Batches of the images in tar shards, as uint8; the training module augments them on the device.

    Members with one name belong together: ``a.jpg`` (or ``.jpeg``, ``.png``) is an image, ``a.cls`` the number of its
    class, 0 if missing. Hidden members and those of systems, such as ``__MACOSX``, are skipped, which is logged once.

    Devices and their worker processes share the shards. Each process reads its own shards in random order, over and over, and
    shuffles images in a buffer. An epoch ends after ``epoch_images``, so that all devices make equally many steps whatever
    their shards hold; the next epoch continues with other shards.

    An unreadable member, or the rest of a truncated shard, is logged once, as a warning, and left out. The run stops if the
    workers of a device cannot read more than 1 % of the images they read (or, before they have read that many, of its share
    of ``epoch_images``).

    Args:
        urls: files or other addresses that webdataset opens; braces are a range (``train-{000..146}.tar``).
        epoch_images: images per epoch, over all devices; usually the number of all images.
        batch_size: images per step and device.
        image_size: side of the square images, pixels. Training modules crop smaller views from them.
        num_workers: number of processes per device that decode.
        shuffle_buffer: encoded images that each worker holds in memory to choose the next one from.
        white: value of white of images with one channel of more than 8 bits; see
            :func:`~anomalib_spd.data.image_files.read_image`.

    Raises:
        ValueError: if a value is out of range.
        ModuleNotFoundError: if webdataset is not installed.
    """

    def __init__(
        self,
        urls: str | list[str],
        epoch_images: int,
        batch_size: int = 32,
        image_size: int = 256,
        num_workers: int = 2,
        shuffle_buffer: int = 1000,
        white: float | None = None,
    ) -> None:
        super().__init__()
        check_white(white)
        least = {"epoch_images": 1, "batch_size": 1, "image_size": 1, "num_workers": 0, "shuffle_buffer": 1}
        for name, least_value in least.items():
            if (value := locals()[name]) < least_value:
                raise ValueError(f"{name} must be {least_value} or more, got {value}")
        expand = _webdataset().shardlists.expand_urls
        self.shards = [shard for url in ([urls] if isinstance(urls, str) else urls) for shard in expand(url)]
        self.epoch_images = epoch_images
        self.batch_size = batch_size
        self.image_size = image_size
        self.num_workers = num_workers
        self.shuffle_buffer = shuffle_buffer
        self.white = white
        self.images: _ShardImages | None = None

    def setup(self, stage: str) -> None:
        """Take this device's share of the shards.

        Raises:
            FileNotFoundError: if a shard that is a file does not exist.
            ValueError: if there are fewer shards than reading processes, or ``epoch_images`` are fewer than a batch.
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
            self.shards[rank::devices],
            batches,
            self.batch_size,
            self.image_size,
            workers,
            self.shuffle_buffer,
            self.white,
        )

    def settings(self) -> dict[str, Any]:
        """Return what batches are made of: a run resumes with no others."""
        names = "\n".join(Path(shard).name for shard in self.shards)
        keys = ("batch_size", "image_size", "epoch_images")
        return {"images": digest(names), **{key: int(getattr(self, key)) for key in keys}}

    def state_dict(self) -> dict[str, Any]:
        """Return the settings for a checkpoint."""
        return {"settings": self.settings()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the settings of a checkpoint.

        Raises:
            ValueError: if it is of a run with other shards or batches.
        """
        check_same_run(state_dict.get("settings", {}), self.settings())

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Return batches, equally many on each device."""
        assert self.images is not None, "Lightning calls setup first"
        return DataLoader(
            self.images,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class _ShardImages(IterableDataset[tuple[Tensor, int]]):
    """One device's images: each iteration is an epoch of uint8 ``(3, image_size, image_size)`` and class number."""

    def __init__(
        self,
        shards: Sequence[str],
        batches: int,
        batch_size: int,
        image_size: int,
        workers: int,
        shuffle_buffer: int,
        white: float | None,
    ) -> None:
        self.shards = shards
        self.batches = batches
        self.batch_size = batch_size
        self.image_size = image_size
        self.shuffle_buffer = shuffle_buffer
        self.white = white
        # read and unreadable images of each worker, which writes its own column and reads the sums
        self._counts = torch.zeros(2, workers, dtype=torch.int64).share_memory_()
        self._unreadable: dict[str, None] = {}
        self._has_skipped = False

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # whole batches: the loader makes each of one worker's images
        batches = len(range(worker, self.batches, workers))
        return islice(self._endless(list(self.shards[worker::workers]), worker), batches * self.batch_size)

    def _endless(self, shards: list[str], worker: int) -> Iterator[tuple[Tensor, int]]:
        # Lightning seeds torch; each epoch draws another number
        rng = random.Random(int(torch.randint(2**62, ())))
        shuffle = _webdataset().shuffle(self.shuffle_buffer, rng=rng)
        while True:
            before = int(self._counts[0, worker])
            rng.shuffle(shards)
            for name, sample in shuffle(self._samples(shards, worker)):
                self._counts[0, worker] += 1
                try:
                    image = next(content for key, content in sample.items() if f".{key}".endswith(_IMAGES))
                    yield decode(io.BytesIO(image), self.image_size, white=self.white), int(sample.get("cls", 0))
                except Exception as error:  # Pillow raises nearly anything for damaged files
                    self._record(name, error, worker)
            if before == self._counts[0, worker]:
                raise ValueError(f"No image ({', '.join(_IMAGES)}) can be read from the shards {', '.join(shards[:3])}")

    def _samples(self, shards: Sequence[str], worker: int) -> Iterator[tuple[str, dict[str, Any]]]:
        wds = _webdataset()
        for shard in shards:
            is_truncated = _is_truncated(Path(shard))
            if is_truncated:
                self._record(shard, EOFError("it is truncated"), worker)
            read = wds.tarfile_to_samples(
                # count it once per reading, whether or not its last member is truncated too
                handler=lambda error, shard=shard, is_truncated=is_truncated: (
                    is_truncated or self._record(shard, error, worker)
                )
            )
            for sample in wds.DataPipeline(wds.SimpleShardList([shard]), read):
                if _is_hidden(sample["__key__"]):
                    if not self._has_skipped:
                        logger.warning("Hidden or system members of shards are skipped, first one in %s", shard)
                    self._has_skipped = True
                elif any(f".{key}".endswith(_IMAGES) for key in sample):
                    yield f"{shard}: {sample['__key__']}", sample

    def _record(self, name: str, error: Exception, worker: int) -> bool:
        """Count and log an unreadable member or shard; returns True, on which webdataset continues."""
        if name not in self._unreadable:
            self._unreadable[name] = None
            logger.warning("%s cannot be read (%s); it is left out", name, error)
        self._counts[1, worker] += 1
        read, count = self._counts.sum(1).tolist()
        if count > MAX_UNREADABLE * max(read, len(self)):
            raise too_many_unreadable(count, f"{read} members", list(self._unreadable), error) from error
        return True


def _is_hidden(key: str) -> bool:
    """Return whether a member is hidden or a system's own, by webdataset's key: its path up to the first dot of its name."""
    *folders, name = key.split("/")
    return not name or any(is_system_entry(folder) for folder in folders if folder not in (".", ".."))


def _is_truncated(shard: Path) -> bool:
    """Return whether a tar file lacks its end, two blocks of zeros, which Python's tarfile does not report."""
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
