"""The order of images in a training that can be stopped at any step and resumed there."""

from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any

from torch.utils.data import DistributedSampler


class ResumableSampler(DistributedSampler[Any]):
    """Shuffles by seed and epoch alone; the first epoch can begin at any item.

    It is a ``DistributedSampler`` in a single process too: Lightning replaces any other sampler by its own, and sets that one's
    epoch only after worker processes have begun to read.

    Args:
        dataset: the items, of which only the number counts.
        num_replicas: number of processes that share an epoch.
        rank: this process's number.
        seed: the same in all processes.
        epoch: number of the first epoch.
        skip: how many items of this process the first epoch leaves out, since an earlier run has read them.
    """

    def __init__(self, dataset: Sized, num_replicas: int, rank: int, seed: int, epoch: int = 0, skip: int = 0) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed, drop_last=True)  # type: ignore[arg-type]
        self.epoch = epoch
        self.skip = skip

    def __iter__(self) -> Iterator[Any]:
        return islice(super().__iter__(), self.skip, None)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch (a hook of Lightning); the current epoch's number changes nothing.

        Args:
            epoch: its number.
        """
        if epoch != self.epoch:
            self.skip = 0
        super().set_epoch(epoch)
