"""Batches of a category's normal images, however few."""

import logging
import os
from typing import Any

from anomalib_spd.data.index import ImageIndex
from anomalib_spd.data.normal_images import NormalImages
from anomalib_spd.files import digest

logger = logging.getLogger(__name__)


class NormalBatches(NormalImages):
    """Batches of the normal training images of anomalib data modules, of a run that goes on with these images alone.

    Where there are fewer images than a batch takes, batches are smaller: also few images have many patches. Else as
    :class:`~anomalib_spd.data.NormalImages`, whose guard of test images holds here too.
    """

    def check_number(self, index: ImageIndex, name: str, processes: int) -> None:
        """Make batches smaller where there are fewer images.

        Raises:
            ValueError: where there are fewer images than processes.
        """
        if len(index) < processes:
            raise ValueError(f"{name} holds {len(index)} images, fewer than {processes} devices. Give fewer devices.")
        if len(index) < self.batch_size * processes:
            self.batch_size = len(index) // processes
            logger.warning("%s holds %d images: batches are of %d", name, len(index), self.batch_size)

    @property
    def title(self) -> str:
        """Of the data modules, with their categories, in messages."""
        names = (" ".join(filter(None, (each.name, getattr(each, "category", "")))) for each in self.datamodules)
        return ", ".join(names)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: how far the run has come, and on which images."""
        return {**super().state_dict(), "images": self._digest()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Note how far the run had come that is gone on with.

        Raises:
            ValueError: where it was on other images.
        """
        if state_dict.get("images") != self._digest():
            raise ValueError(
                f"The checkpoint belongs to a run on other images than those of {self.title}: give another --name"
            )
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "images"})

    def _digest(self) -> str:
        """Return the sha256 of which images there are: title, names and sizes, wherever their folder stands."""
        assert self.images is not None, "Lightning calls setup first"
        paths = [path.absolute() for path in self.images.files]
        folder = os.path.commonpath([path.parent for path in paths])
        files = sorted(f"{path.stat().st_size} {path.relative_to(folder).as_posix()}" for path in paths)
        return digest("\n".join([self.title, *files]))
