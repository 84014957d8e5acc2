"""PatchCore that chooses its memory bank in seconds, not minutes, on a CPU."""

import logging
from typing import Any

import torch
from anomalib.models import Patchcore

from anomalib_spd.detectors.k_center_greedy import KCenterGreedy

logger = logging.getLogger(__name__)


class FastPatchcore(Patchcore):
    """Stock PatchCore with our `KCenterGreedy`: the same arguments, and for the same seed the same memory bank.

    Feature extraction and neighbor search are stock's and take as long. Stock ``Patchcore`` loads its checkpoints. It is
    pickled, and so copied, as stock ``Patchcore``, since a model that anomalib exports by ``torch.save`` must not need this
    package.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return object.__new__, (Patchcore,), self.__getstate__()

    def fit(self) -> None:
        """Choose the memory bank from the embeddings ``(N, D)`` of all training batches, and release these.

        Raises:
            ValueError: where there was no training batch, or where the ratio leaves no point.
        """
        store = self.model.embedding_store
        if not store:
            msg = "There are no embeddings to choose the memory bank from: the model has seen no training batch."
            raise ValueError(msg)
        logger.info("Choosing the memory bank.")
        embedding = torch.vstack(store)
        store.clear()
        self.model.memory_bank = KCenterGreedy(embedding, self.coreset_sampling_ratio).sample_coreset()
