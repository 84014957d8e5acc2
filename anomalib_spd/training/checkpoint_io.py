"""Checkpoints that are whole or not there."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from anomalib_spd.files import atomic_write


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's way to save a checkpoint, but beside the place where it is to stand.

    Lightning writes to the folder of temporary files and moves from there. Between two file systems a move is a copy
    over the checkpoint before, of which a full disk, or a kill, leaves half. Here the new one takes its name, in one
    step, only when it is whole and on the disk; until then the one before stands.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save a checkpoint (a hook of Lightning).

        Args:
            checkpoint: what ``torch.save`` takes.
            path: where it is to stand; a URL is left to Lightning.
            storage_options: see Lightning.

        Raises:
            OSError: where it cannot be written; what stood there still does.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # torch's writer says of a full disk no more than an unexpected position in a file
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_write(Path(path), remove_stale=True) as file:
            file.write(content.getbuffer())
