"""anomalib's k-center-greedy coreset: the same points in a fraction of the time."""

import torch
from anomalib.models.components import KCenterGreedy as StockKCenterGreedy
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

# share of the points that a round considers: more points make fewer rounds, but longer steps
ROUND = 1 / 16
# elements of a block of squared distances: 16 MB
BLOCK = 2**21
# points of a block, which bounds the copies of features
ROWS = 4096


class KCenterGreedy(StockKCenterGreedy):
    r"""anomalib's ``KCenterGreedy`` with lazy evaluation: the same arguments, random numbers and points.

    In each step, stock computes the distances of all points to the new center. A point's distance to its nearest center
    can only fall, so an old distance is an upper bound, and a point whose bound is below the largest distance cannot be
    chosen. A round therefore

    1. takes the points of the largest bounds, those of at least some threshold :math:`t`;
    2. updates their bounds with all centers that they have missed, many points and centers at once. A matrix product in
       double precision finds the few centers that may be nearest to each point; only their distances are computed as
       stock computes them;
    3. takes stock's steps among those of them that are still at :math:`t` or above, as long as there is one: all others
       are below. They are few, and fit into the processor's cache.

    Most points are soon near a center and are updated only a few times more, together with others, so that the cost is no
    longer that of reading all features once for each center. Even if each point had to be compared with each center, one
    matrix product would do it.

    The distances that decide are stock's to the last bit wherever torch's norm of a row does not depend on the number of
    rows. This holds on a CPU; on a CUDA device, points that tie within rounding may be chosen in another order. Among equals
    the first is chosen, as in stock. Stock's own code handles half precision, values that are not finite or beyond the
    fourth root of the largest of their dtype, embeddings that are no matrix, and other devices.

    ``min_distances`` stays None, since most of the distances are never computed.

    Source: ours. Greedy selection by outdated bounds is known as lazy greedy (Minoux, 1978).

    Args:
        embedding: points to choose from, ``(N, D)``.
        sampling_ratio: share of the points that is chosen, in ``(0, 1]``.

    Raises:
        ValueError: where the ratio leaves no point.

    Examples:
        >>> embedding = torch.randn(5000, 64)
        >>> KCenterGreedy(embedding, sampling_ratio=0.01).sample_coreset().shape
        torch.Size([50, 64])
    """

    @torch.no_grad()
    def select_coreset_idxs(self) -> list[int]:
        """Choose the coreset.

        Returns:
            Indices of the chosen points, in the order of choice.
        """
        if not _is_ours(self.embedding):
            indices: list[int] = super().select_coreset_idxs()
            return indices
        self.model.fit(self.embedding)
        self.features = self.model.transform(self.embedding)
        self.reset_distances()
        start = torch.randint(high=self.n_observations, size=(1,), device=self.features.device)
        selection = _Selection(self.features, self.coreset_size, start)
        with tqdm(total=self.coreset_size - 1, desc="Selecting Coreset Indices.", disable=None) as progress:
            while selection.count < self.coreset_size:
                progress.update(selection.round())
        return selection.chosen.tolist()


class _Selection:
    """The state of a selection.

    Args:
        features: points ``(N, d)``, float32 or float64.
        size: number of points to choose.
        start: the first of them, int64 ``(1,)``.

    Attributes:
        count: number of points chosen so far.
        chosen: their indices, int64 ``(size,)``.
        centers: the chosen points in double precision, ``(size, d)``.
        bounds: each point's distance to the nearest of its first ``compared`` centers, ``(N,)``.
        compared: number of centers that each point was compared with, int64 ``(N,)``.
    """

    def __init__(self, features: Tensor, size: int, start: Tensor) -> None:
        self.features = features
        self.count = 1
        self.chosen = start.repeat(size)
        self.centers = features.new_empty(size, features.shape[1], dtype=torch.float64)
        self.centers[0] = features[start]
        # in blocks, which avoids a temporary of the size of the features
        self.bounds = torch.cat([_distance(block, features[start]) for block in features.split(ROWS)])
        self.compared = torch.ones_like(self.bounds, dtype=torch.long)

    def round(self) -> int:
        """Choose the points of one round, perhaps none; return their number."""
        before = self.count
        largest = self.bounds.topk(max(1, int(len(self.bounds) * ROUND))).values
        if largest[0] == 0:
            # every point is a center or equals one; stock then chooses the first point again and again
            self.chosen[before:] = 0
            self.count = len(self.chosen)
            return self.count - before
        # points at distance 0 are never considered again, however many of them there are
        threshold = largest[-1].clamp(min=torch.finfo(largest.dtype).tiny)
        points = (self.bounds >= threshold).nonzero().squeeze(1)
        self._update(points)
        self._step(points[self.bounds[points] >= threshold], threshold)
        return self.count - before

    def _update(self, points: Tensor) -> None:
        """Compare points, int64 ``(n,)``, with all centers that they have missed."""
        # ordered by the number that they have missed, so that the points of a block have missed about the same centers
        points = points[self.compared[points].argsort(descending=True)]
        for block in points.split(max(1, min(ROWS, BLOCK // self.count))):
            missed = slice(int(self.compared[block[-1]]), self.count)
            if missed.start == missed.stop:
                continue
            rows, columns = _may_be_nearest(self.features[block], self.centers[missed], self.bounds[block])
            rows, columns = block[rows], self.chosen[missed][columns]
            for some, centers in zip(rows.split(ROWS), columns.split(ROWS), strict=True):
                distances = _distance(self.features[some], self.features[centers])
                self.bounds.scatter_reduce_(0, some, distances, "amin")
        self.compared[points] = self.count

    def _step(self, points: Tensor, threshold: Tensor) -> None:
        """Choose from points, int64 ``(n,)`` in ascending order, whose bounds are their distances."""
        if len(points) == 0:
            return
        features, distances = self.features[points], self.bounds[points]
        before = self.count
        while self.count < len(self.chosen):
            farthest, index = distances.max(dim=0)
            if farthest < threshold:
                break
            self.chosen[self.count] = points[index]
            self.count += 1
            distances = torch.minimum(distances, _distance(features, features[index]))
        self.bounds[points] = distances
        self.compared[points] = self.count
        self.centers[before : self.count] = self.features[self.chosen[before : self.count]]


def _may_be_nearest(points: Tensor, centers: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centers that may be nearest to each point and no farther than its bound.

    With :math:`s` the distance as computed by `_distance`, and :math:`q` its square as computed here, rounding errors keep
    within :math:`|s^2 - q| <= r q + a`: ``r`` for the dtype of the points, ``a`` for cancellation in the matrix product and
    for underflow.

    Args:
        points: ``(n, d)``.
        centers: float64 ``(k, d)``.
        bounds: ``(n,)``.

    Returns:
        Indices of points and of centers, int64 of the same length, those of the points in ascending order.
    """
    n_features = points.shape[1]
    precision = torch.finfo(points.dtype)
    points, bounds = points.double(), bounds.double()
    norms, center_norms = points.square().sum(1), centers.square().sum(1)
    # the squared distances minus the points' norms, which saves a pass over the matrix
    squares = torch.addmm(center_norms, points, centers.T, alpha=-2)
    nearest = torch.minimum(bounds.square(), squares.amin(1) + norms)
    relative = (n_features + 8) * precision.eps
    absolute = (2 * n_features + 16) * (torch.finfo(centers.dtype).eps * (norms + center_norms.max()) + precision.tiny)
    # (q (1 + r) + 2 a) / (1 - r) <= q (1 + 4 r) + 4 a for r up to a half
    limits = nearest * (1 + 4 * relative) + 4 * absolute - norms
    rows, columns = (squares <= limits[:, None]).nonzero(as_tuple=True)
    return rows, columns


def _distance(points: Tensor, others: Tensor) -> Tensor:
    """Return the distances ``(n,)`` of points ``(n, d)`` to others ``(n, d)`` or ``(1, d)``, rounded as stock does."""
    distances: Tensor = torch.linalg.norm(points - others, ord=2, dim=1)
    return distances


def _is_ours(embedding: Tensor) -> bool:
    """Return whether the bounds hold: for a matrix of finite values whose squares are far from overflow."""
    if embedding.ndim != 2 or embedding.dtype not in {torch.float32, torch.float64}:
        return False
    if embedding.device.type not in {"cpu", "cuda"}:
        return False
    # NaN compares as false
    return bool(torch.stack(embedding.aminmax()).abs().max() < torch.finfo(embedding.dtype).max ** 0.25)
