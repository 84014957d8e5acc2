"""The order of images, for a training that may be stopped anywhere and goes on where it was."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import Dataset, DistributedSampler


class ResumableSampler(DistributedSampler[Any]):
    """Each epoch's order is made of seed and epoch alone; a first epoch may begin within.

    It is a ``DistributedSampler`` with one process too, as Lightning puts its own in the place of any other, and tells it
    the epoch only after worker processes have begun to read.

    Args:
        dataset: whose items are put in order.
        num_replicas: processes that share an epoch.
        rank: of this one.
        seed: the same in all.
        epoch: the first.
        skip: items of this process that the first epoch leaves out, as they were seen before.
    """

    def __init__(
        self, dataset: Dataset[Any], num_replicas: int, rank: int, seed: int, epoch: int = 0, skip: int = 0
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed, drop_last=True)
        self.epoch = epoch
        self.skip = skip

    def __iter__(self) -> Iterator[Any]:
        return islice(super().__iter__(), self.skip, None)

    def set_epoch(self, epoch: int) -> None:
        """Go on to an epoch, from its beginning (a hook of Lightning).

        Args:
            epoch: its number; the one that it is at changes nothing.
        """
        if epoch != self.epoch:
            self.skip = 0
        super().set_epoch(epoch)
