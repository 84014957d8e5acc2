"""The classifier: the map adds up to the logit, and the loss weighs the classes."""

from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from anomalib.data import ImageBatch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from anomalib_spd.twoclass import Classifier
from anomalib_spd.twoclass.classifier import ClassifierNetwork

SMALL_MODEL = {"backbone": "test_efficientnet", "pretrained": False}


def batch(size: int = 6, image_size: int = 64) -> ImageBatch:
    labels = torch.arange(size) % 3 == 0
    return ImageBatch(image=torch.rand(size, 3, image_size, image_size), gt_label=labels)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_the_map_is_the_heads_logit_of_each_location_over_their_number(backbone: str) -> None:
    network = ClassifierNetwork(backbone, pretrained=False).eval()
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        logits, predictions = network.predict(images)
        features = network.encoder.forward_features(images)
        corner = network.encoder.forward_head(features[..., :1, :1])
    assert network.localizes
    assert predictions.anomaly_map.shape == (2, 1, 96, 64)
    assert predictions.pred_score.shape == (2,)
    torch.testing.assert_close(predictions.pred_score, logits.sigmoid())
    assert torch.equal(predictions.pred_label, predictions.pred_score > 0.5)
    # the corner pixel of an upsampled map is the corner location itself
    torch.testing.assert_close(
        predictions.anomaly_map[..., :1, :1].flatten(), (corner / features[0, 0].numel()).sigmoid().flatten()
    )


def test_with_a_linear_head_the_image_logit_is_the_sum_of_its_parts() -> None:
    network = ClassifierNetwork("test_efficientnet", pretrained=False).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = network.encoder.forward_features(images)
        each = F.conv2d(features, network.encoder.classifier.weight[..., None, None], network.encoder.classifier.bias)
        logits, predictions = network.predict(images)
    parts = each / each[0].numel()
    torch.testing.assert_close(parts.sum((1, 2, 3)), logits)
    torch.testing.assert_close(F.interpolate(parts, (64, 64), mode="bilinear").sigmoid(), predictions.anomaly_map)


def test_a_transformer_gives_scores_and_no_map() -> None:
    model = Classifier("test_vit", pretrained=False).eval()
    predictions = model.model(torch.rand(2, 3, 160, 160))
    assert not model.localizes
    assert predictions.anomaly_map is None
    assert predictions.pred_score.shape == (2,)


def with_data(model: Classifier, normal: int, defective: int, balanced: bool = False) -> Classifier:
    samples = SimpleNamespace(label_index=torch.tensor([0] * normal + [1] * defective))
    data = SimpleNamespace(train_data=SimpleNamespace(samples=samples), balanced=balanced)
    model._trainer = SimpleNamespace(datamodule=data)
    return model


@pytest.mark.parametrize(("balanced", "weight"), [(False, 4.0), (True, 1.0)])
def test_defective_images_count_as_much_as_normal_ones(balanced: bool, weight: float) -> None:
    model = with_data(Classifier(**SMALL_MODEL), 8, 2, balanced)
    model.on_fit_start()
    logits, few = torch.tensor([0.5, -1.0, 2.0]), ImageBatch(torch.rand(3, 3, 8, 8), gt_label=torch.tensor([0, 1, 0]))
    each = F.binary_cross_entropy_with_logits(logits, few.gt_label.float(), reduction="none")
    torch.testing.assert_close(model.criterion(logits, few), (each * torch.tensor([1.0, weight, 1.0])).mean())


def test_focal_loss_is_that_of_torchvision() -> None:
    model, images = Classifier(loss="focal", **SMALL_MODEL), batch()
    logits = torch.randn(6)
    expected = sigmoid_focal_loss(logits, images.gt_label.float(), reduction="mean")
    torch.testing.assert_close(model.criterion(logits, images), expected)


@pytest.mark.parametrize(("normal", "defective"), [(0, 3), (3, 0)])
def test_both_classes_are_needed(normal: int, defective: int) -> None:
    with pytest.raises(ValueError, match=f"Got {normal} normal and {defective} defective.*VisaTwoClass"):
        with_data(Classifier(**SMALL_MODEL), normal, defective).on_fit_start()


def test_labels_are_needed() -> None:
    with pytest.raises(ValueError, match="Labels are needed"):
        Classifier(**SMALL_MODEL).training_loss(ImageBatch(torch.rand(2, 3, 64, 64)))


def test_images_are_flipped_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, seen = Classifier(**SMALL_MODEL), batch(64, 32), []

    def logits(flipped: Tensor) -> Tensor:
        seen.append(flipped)
        return torch.zeros(len(flipped), requires_grad=True)

    monkeypatch.setattr(model.model, "logits", logits)
    model.training_loss(images)
    same = (seen[0] == images.image).flatten(1).all(1)
    mirrored = (seen[0] == images.image.flip(-1)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 16 <= int(mirrored.sum()) <= 48


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "hinge"}, "`loss` is 'weighted' or 'focal'. Got 'hinge'"),
        ({"steps": 0}, "`steps` and `learning_rate` are positive.* Got 0, 0.001 and"),
        ({"learning_rate": 0.0}, "`learning_rate` are positive.* Got 1000, 0.0 and"),
        ({"weight_decay": -1.0}, "`weight_decay` is positive or 0.* and -1.0"),
    ],
)
def test_argument_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier(**SMALL_MODEL, **changes)


def test_it_starts_from_the_backbone() -> None:
    model = Classifier("efficientnet_lite0_spd")
    named = timm.create_model("efficientnet_lite0_spd", pretrained=True).state_dict()
    own = model.model.encoder.state_dict()
    assert all(torch.equal(own[name], named[name]) for name in named if not name.startswith("classifier"))
