"""k-means on a line against scikit-learn's and against all clusterings there are."""

import itertools
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from anomalib_spd.saliency import kmeans_1d


def _smooth(size: int) -> Tensor:
    """Maps like LayerCAM's: few values, enlarged, from 0 to 1."""
    maps = F.interpolate(torch.rand(3, 1, 8, 8) ** 3, size=size, mode="bilinear")
    maps = maps - maps.amin((1, 2, 3), keepdim=True)
    return maps / maps.amax((1, 2, 3), keepdim=True)


MAPS: dict[str, Callable[[], Tensor]] = {
    "smooth": lambda: _smooth(96),
    "large": lambda: _smooth(256)[:1],
    "mostly zero": lambda: (_smooth(96) - 0.3).clamp(min=0),
    "half precision": lambda: _smooth(96).half(),
    "noise": lambda: torch.rand(3, 1, 64, 48),
    "skewed": lambda: torch.rand(3, 1, 64, 64) ** 8,
    "long tail": lambda: torch.randn(2, 1, 60, 60).exp(),
    "negative": lambda: torch.randn(2, 1, 50, 40) - 100,
    "small": lambda: torch.rand(4, 1, 8, 8),
}


@pytest.mark.parametrize("k", range(1, 7))
@pytest.mark.parametrize("case", MAPS)
def test_inertia_is_as_good_as_that_of_scikit_learn(case: str, k: int) -> None:
    torch.manual_seed(k)
    maps = MAPS[case]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer different values than clusters
        theirs = [KMeans(k, n_init=10, random_state=0).fit(m.double().reshape(-1, 1).numpy()).inertia_ for m in maps]
    # rounding to levels moves a boundary by a level
    assert (kmeans_1d(maps, k).inertia(maps) <= torch.tensor(theirs) * (1 + 1e-4)).all()


@pytest.mark.parametrize("k", [2, 3, 4])
def test_is_the_best_of_all_clusterings(k: int) -> None:
    torch.manual_seed(0)
    values = torch.rand(6, 14, dtype=torch.float64).sort(1).values

    def inertia(row: Tensor, edges: tuple[int, ...]) -> float:
        parts = [row[a:b] for a, b in itertools.pairwise((0, *edges, len(row)))]
        return sum(((part - part.mean()) ** 2).sum().item() for part in parts)

    best = [min(inertia(row, edges) for edges in itertools.combinations(range(1, 14), k - 1)) for row in values]
    torch.testing.assert_close(
        kmeans_1d(values, k).inertia(values), torch.tensor(best, dtype=torch.float64), rtol=1e-4, atol=1e-8
    )


def test_centers_are_the_means_of_their_clusters_in_ascending_order() -> None:
    torch.manual_seed(0)
    maps = _smooth(64)
    clusters = kmeans_1d(maps, 4)
    labels = clusters.labels(maps)
    assert labels.shape == maps.shape
    assert (clusters.centers.diff(dim=1) > 0).all()
    for index, centers in enumerate(clusters.centers):
        for label, center in enumerate(centers):
            torch.testing.assert_close(maps[index][labels[index] == label].mean(), center, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("levels", [64, 256, 1024])
def test_rounding_moves_boundaries_by_a_level_or_so(levels: int) -> None:
    torch.manual_seed(0)
    maps = torch.cat([_smooth(128), (_smooth(128) - 0.3).clamp(min=0)])
    exact, rounded = kmeans_1d(maps, 4, levels=65536), kmeans_1d(maps, 4, levels=levels)
    # the inertia is flat about its least, so boundaries may lie farther off than it
    assert (rounded.inertia(maps) <= exact.inertia(maps) * (1 + 10 / levels)).all()


def test_each_row_is_clustered_alone() -> None:
    torch.manual_seed(0)
    maps = _smooth(64)
    together = kmeans_1d(maps, 4)
    for index in range(len(maps)):
        assert (kmeans_1d(maps[index : index + 1], 4).centers == together.centers[index]).all()


@pytest.mark.parametrize("levels", [256, 4096])
@pytest.mark.parametrize("values", [[0.0], [0.25, 0.75], [0.0, 0.5, 1.0], [-3.0, 7.0]])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_fewer_values_than_clusters(values: list[float], k: int, levels: int) -> None:
    maps = torch.tensor(values)[torch.randint(len(values), (2, 1, 20, 20))]
    clusters = kmeans_1d(maps, k, levels=levels)
    assert clusters.centers.shape == (2, k)
    assert (clusters.centers.diff(dim=1) >= 0).all()
    if len(values) <= k:
        # rounding moves a value by half a level at the most
        level = (max(values) - min(values)) / (levels - 1)
        assert clusters.inertia(maps).max() <= 400 * (level / 2) ** 2 + 1e-8


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    maps = torch.rand(2, 1, 8, 8)
    maps[1, 0, 3, 3] = bad
    with pytest.raises(RuntimeError, match="finite"):
        kmeans_1d(maps, 4)


def test_other_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`k`.*Got 0"):
        kmeans_1d(torch.rand(2, 9), 0)
    with pytest.raises(ValueError, match=r"`levels`.*Got 4 and 1"):
        kmeans_1d(torch.rand(2, 9), 4, levels=1)
    with pytest.raises(ValueError, match="floating"):
        kmeans_1d(torch.ones(2, 9, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match=r"\(9,\)"):
        kmeans_1d(torch.rand(9), 2)


def test_compiles_as_one_graph() -> None:
    maps = torch.rand(2, 1, 16, 16)
    compiled = torch.compile(kmeans_1d, fullgraph=True, backend="eager")
    assert (compiled(maps, 3).centers == kmeans_1d(maps, 3).centers).all()
