"""PatchCore that chooses its memory bank in seconds, not minutes, on a CPU, and predicts sooner."""

import inspect
import logging
from typing import Any

import torch
import torch.nn.functional as F
from anomalib.data import InferenceBatch
from anomalib.models import Patchcore
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torch import Tensor, nn

from anomalib_spd.detectors.folding import fold_batch_norm
from anomalib_spd.detectors.k_center_greedy import KCenterGreedy

logger = logging.getLogger(__name__)

#: of an embedding whose distances are computed together
_ROWS = 512


class FastPatchcore(Patchcore):
    """Stock PatchCore with our `KCenterGreedy` and `FastPatchcoreModel`: the same arguments, and the same results, sooner.

    For the same seed the memory bank is stock's; scores and maps are stock's but for rounding. Stock ``Patchcore`` loads its
    checkpoints. It is pickled, and so copied, as stock ``Patchcore``, since a model that anomalib exports by ``torch.save`` must
    not need this package.
    """

    #: grids look there for the argument that names the backbone
    __signature__ = inspect.signature(Patchcore)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model = FastPatchcoreModel.of(self.model)

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


class FastPatchcoreModel(PatchcoreModel):
    """The network of stock PatchCore, faster at prediction; it is pickled as stock's.

    - One matrix product gives the distances to the memory bank; the square root is taken of the nearest ones alone, and the index of
      the nearest point is looked for at the farthest location alone, where it is read. In an exported file, a search for the indices
      takes three times the product.
    - The backbone works on channels-last images, and its batch norm is part of its convolutions: a copy, made at the first images.
    - Enlarging the scores and blurring them is linear and separable: a small matrix on either side of them does both.

    The last two are left out in training, under export and with a tiler. In half precision the distances are stock's too.
    """

    @classmethod
    def of(cls, stock: PatchcoreModel) -> "FastPatchcoreModel":
        """Return the same network, with the same tensors."""
        model = cls.__new__(cls)
        model.__dict__.update(stock.__dict__)
        return model

    #: what the backbone's tensors were when it was copied, and the copy; no submodule, so that it is not in checkpoints
    _folded: tuple[list[tuple[int, int]], nn.Module] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in self.__getstate__().items() if name != "_folded"}
        return object.__new__, (PatchcoreModel,), state

    def forward(self, input_tensor: Tensor) -> Tensor | InferenceBatch:
        """Return what stock's returns: embeddings in training, otherwise scores and maps.

        Args:
            input_tensor: normalized images, floating ``(B, 3, H, W)``.

        Raises:
            ValueError: where the memory bank is empty.
        """
        # the bank is to be stock's bit for bit
        is_stock = (
            self.training
            or self.tiler is not None
            or self.memory_bank.dtype != torch.float32
            or not len(self.memory_bank)
        )
        if is_stock or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
            return super().forward(input_tensor)
        with torch.no_grad():
            images = input_tensor.type(self.memory_bank.dtype).contiguous(memory_format=torch.channels_last)
            features = self._backbone(images)(images)
        maps = self.generate_embedding({layer: self.feature_pooler(each) for layer, each in features.items()})
        batch, _, height, width = maps.shape
        embedding = self.reshape_embedding(maps)
        distances, nearest = (each.view(batch, -1) for each in self.nearest_neighbors(embedding, 1))
        scores = self.compute_anomaly_score(distances, nearest, embedding)
        rows, columns = (
            self._enlarge_and_blur(*sizes) for sizes in zip((height, width), images.shape[-2:], strict=True)
        )
        anomaly_map = rows @ distances.view(batch, 1, height, width) @ columns.T
        return InferenceBatch(pred_score=scores, anomaly_map=anomaly_map)

    def _backbone(self, images: Tensor) -> nn.Module:
        """Return the folded backbone, which is made anew where a tensor of the backbone is another, or has changed."""
        tensors = [*self.feature_extractor.parameters(), *self.feature_extractor.buffers()]
        if any(tensor.is_inference() for tensor in tensors):  # changes of these are not counted
            return self.feature_extractor
        versions = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if self._folded is None or self._folded[0] != versions:
            self._folded = versions, fold_batch_norm(self.feature_extractor, images)
        return self._folded[1]

    def nearest_neighbors(self, embedding: Tensor, n_neighbors: int) -> tuple[Tensor, Tensor]:
        """Return stock's distances and indices; for one neighbor and in float32, the indices are all 0, since none is read.

        Args:
            embedding: ``(N, D)``.
            n_neighbors: number K.

        Returns:
            Distances and indices: ``(N,)`` for one neighbor, ``(N, K)`` for more.
        """
        if n_neighbors > 1 or self.memory_bank.dtype != torch.float32:
            return super().nearest_neighbors(embedding, n_neighbors)
        squares = self.memory_bank.square().sum(1)
        # chunks whose products stay in a core's cache
        least = [torch.addmm(squares, part, self.memory_bank.T, alpha=-2).amin(1) for part in embedding.split(_ROWS)]
        distances = (torch.cat(least) + embedding.square().sum(1)).clamp(min=0).sqrt()
        return distances, torch.zeros_like(distances, dtype=torch.long)

    def compute_anomaly_score(self, patch_scores: Tensor, locations: Tensor, embedding: Tensor) -> Tensor:
        """Return stock's scores ``(B,)``.

        Args:
            patch_scores: ``(B, N)``, distances.
            locations: not read.
            embedding: ``(B * N, D)``.
        """
        batch = len(patch_scores)
        farthest = embedding.reshape(batch, -1, embedding.shape[-1])[torch.arange(batch), patch_scores.argmax(1)]
        nearest = self.euclidean_dist(farthest, self.memory_bank).argmin(1)
        return super().compute_anomaly_score(patch_scores, nearest[:, None].expand_as(locations), embedding)

    def _enlarge_and_blur(self, size: int, image_size: int) -> Tensor:
        """Return the matrix ``(image_size, size)`` that does to a column of scores what stock's anomaly map generator does."""
        blur = self.anomaly_map_generator.blur
        kernel = blur.kernel[0, 0].sum(1)  # of a product of two Gaussians, each of sum 1
        columns = F.interpolate(torch.eye(size, dtype=kernel.dtype, device=kernel.device)[:, None], image_size)
        reach = len(kernel) // 2
        return F.conv1d(F.pad(columns, (reach, reach), blur.border_type), kernel[None, None])[:, 0].T
