"""One way through each path of the package, for any architecture: random weights, small images, one step."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from anomalib.data import Visa
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from anomalib_spd import adapt, backbones
from anomalib_spd.backbones.saliency import saliency_cache
from anomalib_spd.cli.main import main
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from anomalib_spd.finetuning import PatchClassification
from anomalib_spd.local import CrossImageSPD, DenseSPD
from anomalib_spd.pretraining import MoCoSPD, SimCLRSPD, SimSiamSPD, SupervisedSPD
from anomalib_spd.saliency import LayerCAM
from anomalib_spd.training.module import TrainingModule

#: of images, pixels: of whole patches of 14 and of 16, and not what transformers were made for
SIZE = 112


class Subject(NamedTuple):
    """What goes through a path.

    Attributes:
        architecture: timm's name, random weights.
        name: under which it is in the registry.
        root: folder of VisA's layout.
        folder: that may be written to.
        registered: whether it has a name in the registry; else it goes by timm's, without weights.
    """

    architecture: str
    name: str
    root: Path
    folder: Path
    registered: bool = True


def name_of(architecture: str) -> str:
    """A name of the registry for a network of that architecture."""
    return f"{architecture.partition('.')[0]}_sweep"


def register_random(architecture: str) -> None:
    """Register a random network."""
    torch.manual_seed(0)
    backbones.add(name_of(architecture), timm.create_model(architecture), architecture.partition(".")[0])


def _commands(subject: Subject) -> None:
    torch.manual_seed(0)
    file = subject.folder / "weights.pth"
    torch.save(timm.create_model(subject.architecture).state_dict(), file)
    name = f"{subject.name}_again"
    out = subject.folder / "out"
    for command in (
        ["add", name, str(file), "--architecture", subject.architecture.partition(".")[0]],
        ["show", name],
        ["export", name, str(out)],
        ["remove", name],
    ):
        _run(["backbones", *command])


def _run(args: list[str]) -> None:
    """Run the command; its error is raised."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        code = main(args)
    if code:
        raise ValueError(error.getvalue().strip().splitlines()[-1])


def _one_step(model: TrainingModule, batch: tuple[Tensor, Tensor], folder: Path) -> None:
    before = {name: each.clone() for name, each in model.encoder.named_parameters() if each.requires_grad}
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(
        model,
        DataLoader([tuple(each[index] for each in batch) for index in range(len(batch[0]))], batch_size=len(batch[0])),
    )
    after = dict(model.encoder.named_parameters())
    assert all(each.isfinite().all() for each in after.values())
    assert any(not torch.equal(after[name], each) for name, each in before.items())


def _trained(method: Callable[..., Any], **settings: Any) -> Callable[[Subject], None]:
    def run(subject: Subject) -> None:
        torch.manual_seed(0)
        images = torch.randint(0, 256, (4, 3, SIZE, SIZE), dtype=torch.uint8)
        model = method(backbone=subject.name, pretrained=subject.registered, **settings)
        _one_step(model, (images, torch.zeros(4, dtype=torch.int64)), subject.folder)

    return run


def _adapted(subject: Subject) -> None:
    name = f"{subject.name}_adapted"
    made = adapt(
        Visa(root=subject.root, category="one", num_workers=0),
        name,
        settings={"pretrained": subject.registered},
        backbone=subject.name,
        folder=subject.folder,
        batch_size=4,
        image_size=SIZE,
        num_workers=0,
        holdout=0,
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    assert made is not None
    backbones.remove(name)


def _layer_cam(subject: Subject) -> None:
    if not subject.registered:
        LayerCAM(timm.create_model(subject.architecture), ["stages.1"])
    maps = saliency_cache(subject.name, folder=subject.folder)(torch.randn(1, 3, SIZE, SIZE))
    assert maps.shape[-2:] == (SIZE, SIZE)
    assert maps.isfinite().all()


def _detector(detector: Callable[..., Any], **arguments: Any) -> Callable[[Subject], None]:
    def run(subject: Subject) -> None:
        layers = backbones.layers(subject.name) if subject.registered else ["stages.1"]
        model = detector(
            backbone=subject.name,
            pre_trained=subject.registered,
            layers=layers,
            visualizer=False,
            pre_processor=BackbonePreProcessor((SIZE, SIZE)),
            **arguments,
        )
        engine = Engine(
            accelerator="cpu",
            devices=1,
            logger=False,
            default_root_dir=subject.folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            max_epochs=1,
        )
        (results,) = engine.train(model=model, datamodule=Visa(root=subject.root, category="one", num_workers=0))
        assert {"image_AUROC", "pixel_AUROC"} <= results.keys()

    return run


PATHS: dict[str, Callable[[Subject], None]] = {
    "add, show, export": _commands,
    "supervised SPD": _trained(SupervisedSPD, num_classes=3, image_size=SIZE),
    "SimSiam SPD": _trained(SimSiamSPD, image_size=SIZE, projection=16, bottleneck=8),
    "SimCLR SPD": _trained(SimCLRSPD, image_size=SIZE, projection=8, hidden=16, warmup_epochs=0),
    "MoCo SPD": _trained(MoCoSPD, image_size=SIZE, projection=8, queue_size=16),
    "dense SPD": _trained(DenseSPD, image_size=SIZE),
    "cross-image SPD": _trained(CrossImageSPD, image_size=SIZE),
    "adapt": _adapted,
    "CutSwap": _trained(PatchClassification, frozen_steps=0, clusters=1),
    "LayerCAM": _layer_cam,
    "PatchCore": _detector(Patchcore),
    "PaDiM": _detector(Padim, n_features=10),
}
