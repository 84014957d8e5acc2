"""Times our ``KCenterGreedy`` against stock's, in pairs: the same embeddings, the same seed, one after the other.

Run from the project's root, with the extra ``[test]`` installed; stock takes two minutes for the 1,568 steps of the
default (200 images, 1 % of 156,800 points) on two cores::

    python speed/k_center_greedy.py
    python speed/k_center_greedy.py --ratio 0.1 --stock-steps 300
    python speed/k_center_greedy.py --normal 1536 --images 100
    python speed/k_center_greedy.py --fit

A pair is ours, then stock. The time per step is without the random projection, which both do alike. With ``--fit`` it is that of
``Engine.fit``, images, features and coreset, of the whole folder at 256 x 256 px.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Patchcore
from anomalib.models.components import KCenterGreedy as StockKCenterGreedy
from lightning.pytorch import seed_everything
from torch import Tensor
from torchvision.io import ImageReadMode, read_image

from anomalib_spd.detectors import FastPatchcore, KCenterGreedy
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor

DATA = Path(os.environ.get("ANOMALIB_SPD_TEST_DATA", "../shared/data"))


def embed(folder: Path, n_images: int, backbone: str, layers: list[str]) -> Tensor:
    """Return the embeddings ``(n_images * 784, D)`` that PatchCore collects from a folder's first images."""
    pre_processor = BackbonePreProcessor(image_size=(256, 256), center_crop_size=(224, 224))
    # in training mode the model only collects; its backbone stays in evaluation mode, as in anomalib
    model = Patchcore(backbone, layers, visualizer=False, pre_processor=pre_processor).model.train()
    model.feature_extractor.eval()
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})[:n_images]
    if len(paths) < n_images:
        msg = f"{folder} has {len(paths)} images; {n_images} are wanted."
        raise ValueError(msg)
    for path in paths:
        model(pre_processor(read_image(str(path), ImageReadMode.RGB)[None] / 255))
    return torch.vstack(model.embedding_store)


def select(sampler: StockKCenterGreedy, steps: int, seed: int) -> tuple[list[int], float]:
    """Choose ``steps`` points after the first; returns the indices and the seconds."""
    seed_everything(seed, verbose=False)
    sampler.coreset_size = steps + 1
    begin = time.perf_counter()
    indices: list[int] = sampler.select_coreset_idxs()
    return indices, time.perf_counter() - begin


def fit(kind: type[Patchcore], options: argparse.Namespace) -> tuple[Tensor, float]:
    """Fit a detector on the folder; returns its memory bank and the seconds."""
    seed_everything(options.seed, verbose=False)
    model = kind(
        options.backbone,
        options.layers,
        coreset_sampling_ratio=options.ratio,
        pre_processor=BackbonePreProcessor(),
        evaluator=False,
        visualizer=False,
    )
    data = Folder("parts", options.folder, root=".", test_split_mode="none", val_split_mode="none", num_workers=0)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(accelerator="cpu", default_root_dir=folder, barebones=True, limit_val_batches=0)
        begin = time.perf_counter()
        engine.fit(model, datamodule=data)
        return model.model.memory_bank, time.perf_counter() - begin


def main() -> None:
    """Print milliseconds per step of both, their ratio, and whether the indices are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=DATA / "visa_pytorch" / "bottle" / "train" / "good")
    parser.add_argument("--images", type=int, default=200, help="784 points each")
    parser.add_argument("--backbone", default="efficientnet_lite0_spd")
    parser.add_argument("--layers", nargs="+", default=["blocks.2", "blocks.4"])
    parser.add_argument("--normal", type=int, metavar="D", help="normal random numbers of that dimension, no images")
    parser.add_argument("--ratio", type=float, default=0.01, help="share of the points that is chosen")
    parser.add_argument("--stock-steps", type=int, help="stop stock after so many steps; all of them by default")
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fit", action="store_true", help="time the whole of Engine.fit")
    options = parser.parse_args()

    if options.fit:
        fit(FastPatchcore, options)  # the first of a process takes longer
        for _ in range(options.pairs):
            (bank, our_fit), (stock_bank, stock_fit) = (fit(kind, options) for kind in (FastPatchcore, Patchcore))
            same = "identical" if torch.equal(bank, stock_bank) else "DIFFERENT"
            ratio = stock_fit / our_fit
            print(f"stock {stock_fit:.1f} s, ours {our_fit:.1f} s, ratio {ratio:.1f}, {len(bank)} points, banks {same}")
        return

    seed_everything(options.seed, verbose=False)
    if options.normal:
        embedding = torch.randn(options.images * 784, options.normal)
    else:
        embedding = embed(options.folder, options.images, options.backbone, options.layers)
    steps = int(len(embedding) * options.ratio) - 1
    stock_steps = min(steps, options.stock_steps or steps)
    _, projection = select(KCenterGreedy(embedding, options.ratio), 0, options.seed)
    print(f"{tuple(embedding.shape)} points, {steps} steps, of stock {stock_steps}, {torch.get_num_threads()} threads")

    ratios = []
    for _ in range(options.pairs):
        ours, our_seconds = select(KCenterGreedy(embedding, options.ratio), steps, options.seed)
        stock, stock_seconds = select(StockKCenterGreedy(embedding, options.ratio), stock_steps, options.seed)
        our_time, stock_time = (our_seconds - projection) / steps, (stock_seconds - projection) / stock_steps
        ratios.append(stock_time / our_time)
        same = "identical" if ours[: len(stock)] == stock else "DIFFERENT"
        print(
            f"stock {1e3 * stock_time:.2f} ms a step, ours {1e3 * our_time:.2f} ms ({our_seconds:.1f} s in all), "
            f"ratio {ratios[-1]:.1f}, indices {same}"
        )
    print(f"median ratio {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
