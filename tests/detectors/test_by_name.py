"""Every detector of the installed anomalib, by our backbone's name.

The tables below are the statement; the tests hold stock anomalib to it, and ``docs/detectors.md`` to them. ``WORKING`` are trained and
tested end to end, ``TRANSFORMERS`` too, by the name of a vision transformer, and ``OURS`` are thin subclasses of ``REFUSED``, which stock
anomalib turns down itself. ``OTHERS`` take no backbone by name.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anomalib.models
import anomalib.models.image
import anomalib.models.video
import cv2
import numpy as np
import pytest
import timm
import torch
from anomalib.data import Visa
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule, TimmFeatureExtractor
from lightning.pytorch import Callback, seed_everything

from anomalib_spd import detectors
from anomalib_spd.backbones import add, register
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from tests.conftest import REPOSITORY

NAME = "efficientnet_lite0_spd"
#: of a transformer: it has what the detectors look for in a name, "vit", "dino" and the size
TRANSFORMER = "vit_small_dino_spd"
CATEGORY = "candle"
SIZE = 128
PAGE = REPOSITORY / "docs" / "detectors.md"


class Working(NamedTuple):
    """The stock arguments with which a detector takes our name, and the image side for the short training.

    Attributes:
        kwargs: Arguments of the detector's constructor beside the auxiliary components.
        metrics: The test metrics that the detector has to report.
        own_layers: The layers of ours that a detector picks itself, where it takes no names.
        size: Side of the square input image.
    """

    kwargs: dict[str, Any]
    metrics: tuple[str, ...] = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score")
    own_layers: tuple[str, ...] = ()
    size: int = SIZE


class Refused(NamedTuple):
    """A detector that stock anomalib ties to fixed architectures.

    Attributes:
        kwargs: Arguments that would be right if the detector took any timm name.
        error: Type of the exception that stock anomalib raises.
        message: Regular expression of the message.
        reason: Why the detector is tied to its architectures.
    """

    kwargs: dict[str, Any]
    error: type[Exception]
    message: str
    reason: str


WORKING: dict[str, Working] = {
    "Cflow": Working({"backbone": NAME, "layers": ["blocks.2", "blocks.4", "blocks.6"]}),
    # it makes no model of fewer images than components; several layers of different width fail for any backbone, since
    # it joins them along the batch
    "Dfkde": Working(
        {"backbone": NAME, "layers": ["blocks.6"], "n_pca_components": 2},
        metrics=("image_AUROC", "image_F1Score"),
    ),
    "Dfm": Working({"backbone": NAME, "layer": "blocks.4"}),
    # input_dim is fixed by the image: channels of the layer times its map after pooling by two
    "Fre": Working({"backbone": NAME, "layer": "blocks.4", "input_dim": 112 * (SIZE // 16 // 2) ** 2}),
    "Glass": Working({"backbone": NAME, "layers": ["blocks.2", "blocks.4"], "input_shape": (SIZE, SIZE)}),
    # its pre-processor always crops 224 x 224
    "MHPatchcore": Working({"backbone": NAME, "layers": ["blocks.2", "blocks.4"]}, size=256),
    # stock has a default n_features for two ResNets only
    "Padim": Working({"backbone": NAME, "layers": ["blocks.1", "blocks.2", "blocks.4"], "n_features": 100}),
    "Patchcore": Working({"backbone": NAME, "layers": ["blocks.2", "blocks.4"]}),
    # takes the feature levels 2, 3, 4 of any timm CNN
    "Patchflow": Working({"backbone": NAME}, own_layers=("blocks.2", "blocks.4", "blocks.6")),
    "Stfpm": Working({"backbone": NAME, "layers": ["blocks.1", "blocks.2", "blocks.4"]}),
    "Supersimplenet": Working({"backbone": NAME, "layers": ["blocks.2", "blocks.4"]}),
}

REFUSED: dict[str, Refused] = {
    "Cfa": Refused(
        {"backbone": NAME},
        ValueError,
        f"Backbone {NAME} is not supported. Supported backbones are",
        "an if-chain over torchvision's vgg19_bn, resnet18 and wide_resnet50_2 gives the layers and their widths",
    ),
    "Fastflow": Refused(
        {"backbone": NAME},
        ValueError,
        f"Backbone {NAME} is not supported. List of available backbones are",
        "an if-chain over cait_m48_448, deit_base_distilled_patch16_384, resnet18 and wide_resnet50_2",
    ),
    "Fuvas": Refused(
        {"backbone": NAME},
        ValueError,
        f"Backbone '{NAME}' is not supported. Use one of",
        "video: clips need a 3-D network, of which it knows i3d, x3d and swin3d_b",
    ),
    "ReverseDistillation": Refused(
        {"backbone": NAME, "layers": ["blocks.1", "blocks.2", "blocks.4"]},
        ValueError,
        f"Decoder with architecture {NAME} not supported",
        "the decoder is the mirrored encoder and exists for ResNets only; the encoder itself would take the name",
    ),
    "Uflow": Refused(
        {"backbone": NAME},
        ValueError,
        "Feature extractor must be one of ['mcait', 'resnet18', 'wide_resnet50_2']",
        "a fixed list, with the ResNet layer names layer1 to layer3 written into the extractor",
    ),
    "UniNet": Refused(
        {"student_backbone": NAME, "teacher_backbone": NAME},
        ValueError,
        f"Unknown model {NAME}",
        "teachers come from torchvision's registry, not timm's, by the layers layer1 to layer3; students are the "
        "ResNet decoders of ReverseDistillation",
    ),
}

TRANSFORMERS: dict[str, Working] = {
    "AnomalyDINO": Working({"encoder_name": TRANSFORMER}, size=112),
    # the blocks are read by the size that the name has: 12 of "small"
    "Dinomaly": Working({"encoder_name": TRANSFORMER}, size=112),
    "GeneralAD": Working({"backbone": TRANSFORMER, "layers": [12], "hidden_dim": 64, "epochs": 1}, size=112),
    "InpFormer": Working({"encoder_name": TRANSFORMER}, size=112),
    "Rad": Working({"backbone": TRANSFORMER, "layers": [3, 6]}, size=112),
    # it reads the backbone at one size of image, that of its weights
    "SuperADD": Working({"backbone": TRANSFORMER, "layers": [3, 6], "patch_size": 224}, size=224),
}

OURS: dict[str, Working] = {
    "Cfa": Working({"backbone": NAME, "layers": ["blocks.1", "blocks.2", "blocks.4"]}),
    "Fastflow": Working({"backbone": NAME, "layers": ["blocks.2", "blocks.4"], "flow_steps": 2}),
    "Uflow": Working({"backbone": NAME, "layers": ["blocks.2", "blocks.4"], "flow_steps": 1}),
}

#: detectors that take no backbone by its name in timm, and why
OTHERS: dict[str, str] = {
    "AiVad": "video: optical flow, poses and CLIP, all its own",
    "AnomalyVFM": "a foundation model that was trained for it, without an argument for it",
    "CFM": "a point cloud network beside a transformer of the DINO family",
    "Csflow": "torchvision's EfficientNet-B5 and its 304 channels are written into it",
    "Draem": "it trains networks of its own from scratch",
    "Dsr": "it trains networks of its own, with weights to download",
    "EfficientAd": "its teacher is a network of its own, with weights to download",
    "FoundAD": "a fixed list of DINO encoders, by names of its own",
    "Ganomaly": "it trains networks of its own from scratch",
    "L2BT": "a DINO encoder of its own, without an argument for it",
    "VlmAd": "it asks a language model",
    "WinClip": "CLIP, of open_clip's names",
}


class PredictionRecorder(Callback):
    """Keeps what a detector predicts in the test, since a metric of a NaN score may well be finite.

    Attributes:
        scores: Image scores of the test batches.
        maps: Anomaly maps of the test batches, for the detectors that have them.
    """

    def __init__(self) -> None:
        self.scores: list[torch.Tensor] = []
        self.maps: list[torch.Tensor] = []

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        outputs = kwargs["outputs"] if "outputs" in kwargs else args[2]
        self.scores.append(outputs.pred_score)
        if outputs.anomaly_map is not None:
            self.maps.append(outputs.anomaly_map)


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def texture(rng: np.random.Generator) -> np.ndarray:
    coarse = rng.integers(60, 196, (SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC))


@pytest.fixture(scope="module")
def visa_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good training images, two good and two bad test images in the layout of stock anomalib's VisA."""
    root = tmp_path_factory.mktemp("visa")
    category = root / "visa_pytorch" / CATEGORY
    rng = np.random.default_rng(0)
    for index in range(4):
        write_image(category / "train" / "good" / f"{index:03}.JPG", texture(rng))
    for index in range(2):
        write_image(category / "test" / "good" / f"{index:03}.JPG", texture(rng))
        bad, mask = texture(rng), np.zeros((SIZE, SIZE), dtype=np.uint8)
        top, left = rng.integers(16, SIZE - 48, 2)
        bad[top : top + 32, left : left + 32] = 255
        mask[top : top + 32, left : left + 32] = 255
        write_image(category / "test" / "bad" / f"{index:03}.JPG", bad)
        write_image(category / "ground_truth" / "bad" / f"{index:03}.png", mask)
    return root


@pytest.fixture(scope="module")
def our_weights() -> dict[str, torch.Tensor]:
    """The weights as timm gives them for our name."""
    weights: dict[str, torch.Tensor] = timm.create_model(NAME, pretrained=True).state_dict()
    return weights


def exported_detectors() -> dict[str, type[AnomalibModule]]:
    modules = (anomalib.models, anomalib.models.image, anomalib.models.video)
    exported = {name: getattr(module, name) for module in modules for name in module.__all__}
    return {
        name: value
        for name, value in exported.items()
        if inspect.isclass(value) and issubclass(value, AnomalibModule) and value is not AnomalibModule
    }


def train_and_test(detector: Any, visa_root: Path, folder: Path, metrics: tuple[str, ...], batch_size: int = 4) -> None:
    recorder = PredictionRecorder()
    engine = Engine(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[recorder],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    datamodule = Visa(root=visa_root, category=CATEGORY, train_batch_size=batch_size, eval_batch_size=4, num_workers=0)

    (results,) = engine.train(model=detector, datamodule=datamodule)

    assert set(results) >= set(metrics)
    assert np.isfinite(list(results.values())).all()
    assert sum(len(scores) for scores in recorder.scores) == 4
    assert all(torch.isfinite(values).all() for values in recorder.scores + recorder.maps)
    assert bool(recorder.maps) == ("pixel_AUROC" in metrics)
    assert all(torch.isfinite(parameter).all() for parameter in detector.parameters())


@pytest.mark.parametrize("detector_name", sorted(WORKING))
def test_trains_and_tests_by_name(
    detector_name: str,
    visa_root: Path,
    our_weights: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    kwargs, metrics, own_layers, size = WORKING[detector_name]
    seed_everything(0, verbose=False)
    detector_class: Any = getattr(anomalib.models, detector_name)
    detector = detector_class(
        **kwargs,
        pre_processor=detector_class.configure_pre_processor(image_size=(size, size)),
        visualizer=False,
    )
    train_and_test(detector, visa_root, tmp_path, metrics)

    # Stfpm's student is a second extractor of our architecture: it starts without weights and is trained
    (frozen,) = [
        module for module in detector.modules() if isinstance(module, TimmFeatureExtractor) and not module.requires_grad
    ]
    # stock drops a layer that it does not find with no more than a warning
    layers = own_layers or kwargs.get("layers") or [kwargs["layer"]]
    assert frozen.feature_extractor.feature_info.module_name() == list(layers)
    held = frozen.feature_extractor.state_dict()
    assert held
    for key, tensor in held.items():
        assert torch.equal(tensor.cpu(), our_weights[key]), key


def test_stfpm_student_starts_without_our_weights(our_weights: dict[str, torch.Tensor]) -> None:
    detector: Any = anomalib.models.Stfpm(**WORKING["Stfpm"].kwargs)

    student = detector.model.student_model.feature_extractor.state_dict()

    assert not torch.equal(student["conv_stem.weight"], our_weights["conv_stem.weight"])


@pytest.mark.parametrize("detector_name", sorted(REFUSED))
def test_stock_anomalib_refuses(detector_name: str) -> None:
    kwargs, error, message, _ = REFUSED[detector_name]
    assert timm.is_model(NAME)

    with pytest.raises(error, match=re.escape(message)):
        getattr(anomalib.models, detector_name)(**kwargs)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, torch.Tensor]]:
    """The weights of a random vision transformer, which is in the registry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALIB_SPD_HOME", str(tmp_path_factory.mktemp("registry")))
        torch.manual_seed(0)
        half = (0.5, 0.5, 0.5)
        add(TRANSFORMER, timm.create_model("vit_small_patch16_224"), "vit_small_patch16_224", mean=half, std=half)
        yield timm.create_model(TRANSFORMER, pretrained=True).state_dict()
    register()


@pytest.mark.parametrize("detector_name", sorted(TRANSFORMERS))
def test_trains_and_tests_by_a_transformers_name(
    detector_name: str, visa_root: Path, transformer: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    kwargs, metrics, _, size = TRANSFORMERS[detector_name]
    seed_everything(0, verbose=False)
    detector_class: Any = getattr(anomalib.models, detector_name)
    detector = detector_class(**kwargs, pre_processor=BackbonePreProcessor(size), visualizer=False)
    train_and_test(detector, visa_root, tmp_path, metrics, batch_size=1 if detector_name == "AnomalyDINO" else 4)
    held = detector.state_dict()
    stem = "patch_embed.proj.weight"
    prefixes = [name.removesuffix(stem) for name in held if name.endswith(stem)]  # a module may have two names
    assert prefixes
    for prefix in prefixes:
        for name in (stem, "blocks.0.attn.qkv.weight", "blocks.11.mlp.fc2.weight"):
            assert torch.equal(held[f"{prefix}{name}"], transformer[name]), name


@pytest.mark.parametrize("detector_name", sorted(OURS))
def test_trains_and_tests_where_stock_refuses(
    detector_name: str, visa_root: Path, our_weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    kwargs, metrics, _, size = OURS[detector_name]
    seed_everything(0, verbose=False)
    detector = getattr(detectors, detector_name)(**kwargs, pre_processor=BackbonePreProcessor(size), visualizer=False)
    train_and_test(detector, visa_root, tmp_path, metrics)
    (extractor,) = [module for module in detector.modules() if isinstance(module, TimmFeatureExtractor)]
    assert extractor.feature_extractor.feature_info.module_name() == kwargs["layers"]
    for key, tensor in extractor.feature_extractor.state_dict().items():
        assert torch.equal(tensor.cpu(), our_weights[key]), key


def test_every_detector_is_in_a_table() -> None:
    tables = [set(WORKING), set(REFUSED), set(TRANSFORMERS), set(OTHERS)]

    listed = set().union(*tables)

    assert len(listed) == sum(map(len, tables))
    assert set(exported_detectors()) == listed
    assert OURS.keys() < REFUSED.keys()
    assert len(WORKING) + len(TRANSFORMERS) + len(OURS) >= 18


def test_the_page_has_the_tables() -> None:
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    page = {row[0].strip(" `"): row[1].strip() for row in rows}
    assert {name for name, answer in page.items() if answer == "yes"} == {*WORKING}
    assert {name for name, answer in page.items() if answer == "yes, a transformer"} == {*TRANSFORMERS}
    assert {name for name, answer in page.items() if answer == f"as `anomalib_spd.detectors.{name}`"} == {*OURS}
    assert {name for name, answer in page.items() if answer == "no"} == {*OTHERS, *REFUSED} - {*OURS}
