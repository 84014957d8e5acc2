"""Every CNN detector of the installed anomalib, by our backbone's name.

The tables below are the statement; the tests hold stock anomalib to it. ``WORKING`` are trained and tested end to end,
``REFUSED`` are turned down by stock anomalib itself, ``TRANSFORMERS`` take the name of a vision transformer, where a
CNN has no place. The completeness test looks for detectors that none of the tables knows.
"""

import inspect
import re
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
from torchvision.models import list_models as list_torchvision_models  # type: ignore[import-untyped]

import anomalib_spd  # noqa: F401

NAME = "efficientnet_lite0_spd"
CATEGORY = "candle"
SIZE = 128


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

TRANSFORMERS: dict[str, str] = {
    "AnomalyDINO": "patch tokens of a DINO encoder, by encoder_name",
    "CFM": "RGB patch tokens of a DINO transformer, by rgb_backbone, beside a point cloud network",
    "Dinomaly": "reconstructs the tokens of a DINO encoder, by encoder_name",
    "FoundAD": "a fixed list of DINO encoders, by encoder_name",
    "GeneralAD": "attention maps of a transformer whose name starts with vit or eva",
    "InpFormer": "tokens of a DINO encoder, by encoder_name",
    "Rad": "class and patch tokens of a transformer",
    "SuperADD": "patch tokens of a DINO transformer",
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


def network_names(detector: type[AnomalibModule]) -> dict[str, Any]:
    """Find the constructor's parameters that name a network, by the parameter's own name or by its default."""
    known = {*timm.list_models(), *list_torchvision_models()}
    found = {}
    for name, parameter in inspect.signature(detector).parameters.items():
        default = parameter.default
        text = isinstance(default, str) or parameter.annotation in (str, "str", str | None, "str | None")
        by_name = re.search("backbone|encoder|teacher|student|extractor|network", name) is not None
        by_default = isinstance(default, str) and default.split(".")[0] in known
        if text and (by_name or by_default):
            found[name] = default
    return found


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
    recorder = PredictionRecorder()
    engine = Engine(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[recorder],
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    datamodule = Visa(root=visa_root, category=CATEGORY, train_batch_size=4, eval_batch_size=4, num_workers=0)

    (results,) = engine.train(model=detector, datamodule=datamodule)

    assert set(results) >= set(metrics)
    assert np.isfinite(list(results.values())).all()
    assert sum(len(scores) for scores in recorder.scores) == 4
    assert all(torch.isfinite(values).all() for values in recorder.scores + recorder.maps)
    assert bool(recorder.maps) == ("pixel_AUROC" in metrics)
    assert all(torch.isfinite(parameter).all() for parameter in detector.parameters())

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


@pytest.mark.parametrize("detector_name", sorted(TRANSFORMERS))
def test_transformer_detector_asks_for_a_transformer(detector_name: str) -> None:
    names = network_names(exported_detectors()[detector_name])

    assert names
    assert all("vit" in default for default in names.values())


def test_every_detector_that_takes_a_network_name_is_in_a_table() -> None:
    detectors = exported_detectors()
    tables = [set(WORKING), set(REFUSED), set(TRANSFORMERS)]

    listed = set().union(*tables)

    assert len(listed) == sum(map(len, tables))
    assert {name for name, detector in detectors.items() if network_names(detector)} == listed
