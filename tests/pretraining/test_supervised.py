"""The classifier that the supervised method starts from."""

import timm
import torch
import torch.nn.functional as F

from anomalib_spd.pretraining import SupervisedSPD


def test_keeps_the_classifier_of_the_backbone() -> None:
    model = SupervisedSPD(num_classes=1000, backbone="efficientnet_lite0_in1k", pretrained=True).eval()
    whole = timm.create_model("efficientnet_lite0_in1k", pretrained=True).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.head(model.encoder(image)), whole(image))


def test_starts_a_classifier_for_other_classes() -> None:
    model = SupervisedSPD(num_classes=7, backbone="efficientnet_lite0_in1k", pretrained=True)
    assert model.head.weight.shape == (7, 1280)


def test_loss_is_the_cross_entropy_of_the_view() -> None:
    model = SupervisedSPD(num_classes=5, backbone="test_efficientnet", pretrained=False)
    features, labels = torch.randn(4, model.encoder.num_features), torch.tensor([0, 1, 4, 2])
    expected = -F.log_softmax(features @ model.head.weight.T + model.head.bias, 1)[torch.arange(4), labels].mean()
    torch.testing.assert_close(model.method_loss([features], torch.zeros(4, 3, 8, 8), labels), expected)


def test_views_have_the_asked_size() -> None:
    model = SupervisedSPD(num_classes=5, backbone="test_efficientnet", pretrained=False, image_size=24)
    assert [view.shape for view in model.method_views(torch.rand(2, 3, 40, 40))] == [(2, 3, 24, 24)]
