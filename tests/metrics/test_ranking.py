"""The metrics against scikit-learn, VisA's rule written out, and themselves: binned, batched, in two processes."""

import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import Evaluator
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score
from torch import Tensor, distributed
from torch.multiprocessing import start_processes

from anomalib_spd.metrics import AUROC, AUPR_step, AUPR_trapezoid, AUPR_visa

Scores = tuple[Tensor, Tensor]


def sklearn_trapezoid(target: np.ndarray, score: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(target, score)
    return auc(recall, precision)


def visa_rule(target: np.ndarray, score: np.ndarray) -> float:
    score = score.astype(np.float64)
    positive = score[target == 1]
    thresholds = [*np.percentile(positive, np.linspace(100, 0, 100))]
    thresholds += [*np.linspace(positive.max(), positive.min(), 100), score.min() - 1e-8, score.max() + 1e-8]
    recall, precision = [], []
    for threshold in sorted(thresholds, reverse=True):
        predicted = score > threshold
        hits = (predicted & (target == 1)).sum()
        recall.append(hits / len(positive))
        precision.append(hits / predicted.sum() if predicted.any() else 1.0)
    return auc(recall, precision)


ORACLES = {
    AUROC: roc_auc_score,
    AUPR_step: average_precision_score,
    AUPR_trapezoid: sklearn_trapezoid,
    AUPR_visa: visa_rule,
}
each_metric = pytest.mark.parametrize("cls", ORACLES)
each_mode = pytest.mark.parametrize("binned", [False, True])


def new(cls: type, **kwargs: Any) -> Any:
    return cls(fields=["score", "target"], **kwargs)


def batch(scores: Tensor, target: Tensor) -> Any:
    return SimpleNamespace(score=scores, target=target)


def evaluated(cls: type, *data: Scores, **kwargs: Any) -> Any:
    metric = new(cls, **kwargs)
    for scores, target in data:
        metric.update(batch(scores, target))
    return metric


def maps(seed: int, positives: float = 0.03, size: int = 2**14, shift: float = 1.0) -> Scores:
    """Scores as pixels have them: positive, skewed, few of them anomalous."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(size, generator=generator) < positives
    return (torch.randn(size, generator=generator) / 2 + shift * target).exp(), target


DATA = {
    "few positives": maps(0, positives=0.01),
    "few negatives": maps(1, positives=0.99),
    "one positive": (maps(2)[0][:1000], torch.arange(1000) == 500),
    "one negative": (maps(2)[0][:1000], torch.arange(1000) != 500),
    "many ties": ((maps(3)[0] * 4).round(), maps(3)[1]),
    "all equal": (torch.full((50,), 0.3), torch.arange(50) % 3 == 0),
    "perfect": (torch.arange(50.0), torch.arange(50) >= 30),
    "reversed": (-torch.arange(50.0), torch.arange(50) >= 30),
    "below zero": (maps(4)[0].log(), maps(4)[1]),
    # VisA's ranks are whole numbers but for rounding
    "100 positives": (maps(5, size=400)[0], torch.arange(400) % 4 == 0),
    # VisA's thresholds lie between them, nearer to one or the other
    "neighbouring floats": ((2**30 + torch.arange(300) * 7 % 11).int().view(torch.float32), torch.arange(300) % 5 == 0),
    "two scores": (torch.tensor([0.2, 0.7]), torch.tensor([0, 1])),
}


@each_metric
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_equals_the_oracle(cls: type, data: Scores) -> None:
    scores, target = data
    expected = ORACLES[cls](target.int().numpy(), scores.numpy())
    parts = zip(scores.tensor_split(3), target.tensor_split(3), strict=True)
    assert evaluated(cls, *parts).compute().item() == pytest.approx(expected, abs=1e-6)


# a coarse grid makes ties, also with VisA's thresholds
coarse = st.integers(-40, 40).map(lambda k: k / 8)
ranked = st.lists(st.tuples(coarse, st.booleans()), min_size=2, max_size=60).filter(
    lambda r: len({t for _, t in r}) == 2
)


@each_metric
@settings(max_examples=50)
@given(pairs=ranked)
def test_equals_the_oracle_under_ties(cls: type, pairs: list[tuple[float, bool]]) -> None:
    scores, target = (torch.tensor(column) for column in zip(*pairs, strict=True))
    expected = ORACLES[cls](target.int().numpy(), scores.numpy())
    assert evaluated(cls, (scores, target)).compute().item() == pytest.approx(expected, abs=1e-6)


any_floats = hnp.arrays(np.float32, 40, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@settings(max_examples=20)
@example(values=np.float32([0.0] + [-1e-45] * 39))
@given(values=any_floats)
def test_bins_keep_the_order_of_all_float32(values: np.ndarray) -> None:
    scores, target = torch.from_numpy(values), torch.arange(40) % 3 == 0
    # the bins next to zero, of scores below 6e-42, stand for zero
    bins = np.sign(values) * (np.abs(values).view(np.int32) >> 12)
    assert evaluated(AUROC, (scores, target), binned=True).compute().item() == pytest.approx(
        roc_auc_score(target, bins)
    )


@each_metric
def test_binned_is_exact_for_scores_of_20_bits(cls: type) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-1000, 1000, (5000,), generator=generator) / 16
    scores[::100] = torch.tensor([0.0, -0.0]).repeat(25)
    target = torch.rand(5000, generator=generator) < 0.2
    binned = evaluated(cls, (scores, target), binned=True)
    assert binned.compute().item() == pytest.approx(ORACLES[cls](target.int().numpy(), scores.numpy()), abs=1e-6)


@each_metric
def test_binned_applies_the_rule_to_cut_scores(cls: type) -> None:
    scores, target = maps(0, size=2**18)
    cut = (scores.view(torch.int32) >> 12 << 12).view(torch.float32)
    value = evaluated(cls, (scores, target), binned=True).compute().item()
    assert value == pytest.approx(ORACLES[cls](target.int().numpy(), cut.numpy()), abs=1e-6)
    assert value == pytest.approx(evaluated(cls, (scores, target)).compute().item(), abs=1e-3)


def test_visa_predicts_all_at_the_lowest_threshold() -> None:
    # in float32, 100 - 1e-8 is 100, and the lowest score would never be predicted
    scores, target = torch.tensor([100.0, 100.0, 101.0]), torch.tensor([1, 0, 1])
    assert evaluated(AUPR_visa, (scores, target)).compute().item() == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)


@each_metric
@each_mode
def test_batches_do_not_matter(cls: type, binned: bool) -> None:
    scores, target = maps(0, size=1000)
    whole = evaluated(cls, (scores, target), binned=binned)
    parts = zip(scores.split(130), target.split(130), strict=True)
    assert whole.compute() == evaluated(cls, *parts, binned=binned).compute()


@each_metric
@each_mode
def test_forward_and_merge_equal_update(cls: type, binned: bool) -> None:
    first, second = maps(0, 0.3, 100), maps(1, 0.3, 120)
    together = evaluated(cls, first, second, binned=binned).compute()
    metric = new(cls, binned=binned)
    assert metric(batch(*first)) == evaluated(cls, first, binned=binned).compute()
    metric(batch(*second))
    assert metric.compute() == together
    merged = evaluated(cls, first, binned=binned)
    merged.merge_state(evaluated(cls, second, binned=binned))
    assert merged.compute() == together


@each_metric
@each_mode
def test_reset_forgets_all(cls: type, binned: bool) -> None:
    metric = evaluated(cls, maps(0, size=1000), binned=binned)
    metric.reset()
    metric.update(batch(*maps(1, 0.3, 100)))
    assert metric.compute() == evaluated(cls, maps(1, 0.3, 100), binned=binned).compute()


@each_mode
def test_updates_outside_inference_mode_follow_those_inside(binned: bool) -> None:
    metric = new(AUROC, binned=binned)
    with torch.inference_mode():
        metric.update(batch(*maps(0, 0.3, 100)))
    metric.update(batch(*maps(1, 0.3, 100)))
    assert metric.compute() == evaluated(AUROC, maps(0, 0.3, 100), maps(1, 0.3, 100), binned=binned).compute()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("map_shape", [(4, 1, 5, 5), (4, 5, 5)])
@pytest.mark.parametrize("mask_shape", [(4, 1, 5, 5), (4, 5, 5)])
def test_targets_of_any_dtype_with_or_without_channel(dtype: torch.dtype, map_shape: Any, mask_shape: Any) -> None:
    scores, target = maps(0, 0.3, 100)
    metric = evaluated(AUROC, (scores.view(map_shape).half(), target.view(mask_shape).to(dtype)))
    expected = roc_auc_score(target, scores.half())
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


@each_mode
@pytest.mark.parametrize(
    ("scores", "target", "message"),
    [
        (torch.rand(4), torch.tensor([0, 255, 0, 255]), "from 0 to 255.*divide"),
        (torch.rand(2), torch.tensor([0, 0.5]), "from 0 to 0.5"),
        (torch.rand(2), torch.tensor([0, torch.nan]), "from nan"),
        (torch.tensor([0.1, torch.nan, 0.3]), torch.tensor([0, 1, 0]), "1 NaN and 0 infinite of 3"),
        (torch.tensor([0.1, 1e300], dtype=torch.float64), torch.tensor([0, 1]), "0 NaN and 1 infinite of 2"),
        (torch.rand(4, 1, 5, 5), torch.zeros(4, 25), r"\(4, 1, 5, 5\) and \(4, 25\)"),
        (torch.rand(4, 2, 5), torch.zeros(4, 5, 2), r"\(4, 2, 5\) and \(4, 5, 2\)"),
        (torch.rand(4), torch.zeros(5), r"\(4,\) and \(5,\)"),
    ],
)
def test_bad_scores_and_targets_are_refused(binned: bool, scores: Tensor, target: Tensor, message: str) -> None:
    metric = evaluated(AUROC, maps(0, 0.3, 10), binned=binned)
    before = metric.compute()
    with pytest.raises(ValueError, match=message):
        metric.update(batch(scores, target))
    assert metric.compute() == before


@each_metric
@each_mode
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_is_nan_and_said_so(cls: type, binned: bool, label: int) -> None:
    metric = evaluated(cls, (torch.rand(7), torch.full((7,), label)), binned=binned)
    with pytest.warns(UserWarning, match=f"Got {7 * label} positives and {7 - 7 * label} negatives"):
        assert metric.compute().isnan()


def image_batch(seed: int, masks: bool = True) -> ImageBatch:
    """Four images, the last two anomalous."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(4, 8, 8, dtype=torch.int)
    mask[2:, 2:5, 2:5] = 1
    return ImageBatch(
        image=torch.zeros(4, 3, 8, 8),
        gt_label=torch.tensor([0, 0, 1, 1]),
        gt_mask=mask if masks else None,
        pred_score=torch.rand(4, 1, generator=generator),
        anomaly_map=torch.rand(4, 1, 8, 8, generator=generator),
    )


def evaluator_of(metrics: list[Any], *batches: ImageBatch) -> Evaluator:
    evaluator = Evaluator(test_metrics=metrics)
    for index, images in enumerate(batches):
        evaluator.on_test_batch_end(None, None, None, images, index)
    return evaluator


@each_metric
def test_in_anomalibs_evaluator(cls: type) -> None:
    image = cls(fields=["pred_score", "gt_label"], prefix="image_")
    pixel = cls(fields=["anomaly_map", "gt_mask"], prefix="pixel_")
    batches = [image_batch(0), image_batch(1)]
    evaluator_of([image, pixel], *batches)
    assert [image.name, pixel.name] == [f"image_{cls.__name__}", f"pixel_{cls.__name__}"]
    for metric, score, target in ((image, "pred_score", "gt_label"), (pixel, "anomaly_map", "gt_mask")):
        scores = torch.cat([getattr(b, score).flatten() for b in batches])
        targets = torch.cat([getattr(b, target).flatten() for b in batches])
        # the pixels of normal images are among them: all 2 * 4 * 8 * 8
        assert metric.compute().item() == pytest.approx(ORACLES[cls](targets.int().numpy(), scores.numpy()), abs=1e-6)


@each_metric
def test_pixel_metric_of_a_set_without_masks_is_nan(cls: type) -> None:
    pixel = cls(fields=["anomaly_map", "gt_mask"], strict=False)
    evaluator_of([pixel], image_batch(0, masks=False))
    with pytest.warns(UserWarning, match="without masks"):
        assert pixel.compute().isnan()


def test_strict_metric_refuses_a_batch_without_masks() -> None:
    with pytest.raises(ValueError, match="gt_mask"):
        evaluator_of([AUROC(fields=["anomaly_map", "gt_mask"])], image_batch(0, masks=False))


NOTHING = (torch.empty(0), torch.empty(0, dtype=torch.bool))
ONLY_NEGATIVES = (torch.rand(200, generator=torch.Generator().manual_seed(9)), torch.zeros(200))
#: the data of two processes, None for one that sees no batch
PROCESSES: dict[str, tuple[Scores | None, Scores | None]] = {
    "unequal": (maps(0, size=3000), maps(1, size=70)),
    "one without positives": (maps(0, size=3000), ONLY_NEGATIVES),
    "one with an empty batch": (NOTHING, maps(1, size=900)),
    "one without a batch": (maps(1, size=900), None),
    "one class in each": ((torch.rand(30), torch.ones(30)), ONLY_NEGATIVES),
}
#: the two ways to a value; all else is shared
PROCESS_METRICS = (AUPR_step, AUPR_visa)
LATER = [maps(7, size=100), maps(8, size=100)]


def run_process(rank: int, folder: Path) -> None:
    # a forked process must not touch its parent's threads
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    results = {}
    for name, data in PROCESSES.items():
        for cls, binned in product(PROCESS_METRICS, (False, True)):
            metric = evaluated(cls, *filter(None, [data[rank]]), binned=binned, strict=False)
            first = metric.compute()
            metric.update(batch(*LATER[rank]))
            results[name, cls.__name__, binned] = first, metric.compute()
    torch.save(results, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    # spawned ones would each import anomalib
    start_processes(run_process, (folder,), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@each_mode
@pytest.mark.parametrize("cls", PROCESS_METRICS)
@pytest.mark.parametrize("name", PROCESSES)
def test_two_processes_equal_one(of_processes: list[dict[Any, Any]], name: str, cls: type, binned: bool) -> None:
    data = PROCESSES[name]
    alone = evaluated(cls, *filter(None, data), binned=binned).compute()
    # a value computed in between must not leave the gathered scores in the state
    continued = evaluated(cls, *filter(None, data), *LATER, binned=binned).compute()
    for results in of_processes:
        assert results[name, cls.__name__, binned] == (alone, continued)


MEMORY = """
import re, sys, torch
from types import SimpleNamespace
from pathlib import Path
from anomalib_spd.metrics import AUROC, AUPR_step, AUPR_trapezoid, AUPR_visa

metrics = [cls(fields=["score", "target"], binned=True) for cls in (AUROC, AUPR_step, AUPR_trapezoid, AUPR_visa)]
generator = torch.Generator().manual_seed(0)
base = torch.randn(8, 1, 1024, 1024, generator=generator).div_(2).exp_()
target = torch.zeros(8, 1024, 1024, dtype=torch.bool)
target[6:, 300:500, 300:500] = True
base[:, 0][target] += 1
for step in range(75):
    batch = SimpleNamespace(score=base + step / 75, target=target)
    for metric in metrics:
        metric.update(batch)
for metric in metrics:
    assert 0 < metric.compute() < 1
    assert int(metric.positives.sum() + metric.negatives.sum()) == 600 * 2**20
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_600_maps_of_a_megapixel_in_2_gib() -> None:
    """Whose scores alone would take more."""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", MEMORY], cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    assert int(done.stdout) < 2 * 2**20, f"{int(done.stdout) / 2**20:.2f} GiB"
