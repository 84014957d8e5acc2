"""Dense SPD: what it compares, what it trains, and what it leaves alone."""

import copy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from anomalib_spd.backbones.layer_scales import rescale_layers
from anomalib_spd.local import DenseSPD
from tests.local.one_step import learn, model_of, step_of

IMAGES = torch.randint(0, 256, (4, 3, 72, 72), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LAYERS = ("blocks.1", "blocks.2")


def _model(**settings: Any) -> DenseSPD:
    model: DenseSPD = model_of(DenseSPD, **{"image_size": 64, **settings})
    return model


def _step(model: DenseSPD) -> tuple[Tensor, dict[str, float]]:
    return step_of(model, IMAGES)


def test_the_layers_have_equal_rms_and_the_network_says_what_it_said() -> None:
    model = _model()
    before = copy.deepcopy(model.encoder)
    _, logged = _step(model)
    assert model.mean_square[0].item() == pytest.approx(model.mean_square[1].item(), rel=1e-4)
    assert logged["mean_square_blocks.1"] == pytest.approx(logged["mean_square_blocks.2"], rel=0.2)
    for network in (model.encoder, model.teacher):
        with torch.no_grad():
            torch.testing.assert_close(network(IMAGES / 255), before(IMAGES / 255), rtol=1e-4, atol=1e-5)
    _, again = _step(model)  # once is enough
    assert again == logged


def test_at_the_end_of_an_epoch_they_have_it_again() -> None:
    model = _model()
    _step(model)
    rescale_layers(model.encoder, {"blocks.1": 3.0})  # as if SPD had done it
    model.mean_square_sums.zero_()
    _step(model)
    model.on_train_epoch_end()
    assert not model.mean_square_sums.any()
    _, logged = _step(model)
    assert logged["mean_square_blocks.1"] == pytest.approx(logged["mean_square_blocks.2"], rel=1e-4)
    # the same mean square as before, not another one for both
    assert logged["mean_square_blocks.1"] == pytest.approx(3.0, rel=0.3)


def test_without_it_the_layers_are_as_they_come() -> None:
    model = _model(equalize_rms=False)
    before = {key: tensor.clone() for key, tensor in model.encoder.state_dict().items()}
    _step(model)
    assert model.mean_square[0] != pytest.approx(model.mean_square[1].item(), rel=1e-2)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.encoder.state_dict().items())


def test_what_is_compared_is_what_detectors_read() -> None:
    model = _model()
    pyramid = timm.create_model("test_efficientnet", features_only=True).eval()
    pyramid.load_state_dict(model.encoder.state_dict(), strict=False)
    names = pyramid.feature_info.module_name()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps = model.features(model.encoder, images)
        theirs = pyramid(model.normalize(images))
    for layer, each in zip(LAYERS, maps, strict=True):
        torch.testing.assert_close(each, theirs[names.index(layer)])


def test_the_loss_is_its_terms_and_the_control_has_the_same_views() -> None:
    (loss, logged), (control_loss, control) = _step(_model(eta=0.3)), _step(_model(eta=0.0))
    assert loss.item() == pytest.approx(logged["loss_distillation"] + 0.3 * logged["loss_spd"], rel=1e-5)
    assert control_loss.item() == pytest.approx(control["loss_distillation"])
    assert {key: value for key, value in logged.items() if key != "loss"} == {
        key: value for key, value in control.items() if key != "loss"
    }
    assert logged["loss_distillation"] == pytest.approx(
        (logged["distillation_blocks.1"] + logged["distillation_blocks.2"]) / 2
    )


def test_batch_norm_and_the_first_layers_stay() -> None:
    model = _model()
    _step(model)
    before = {key: tensor.clone() for key, tensor in model.encoder.state_dict().items()}
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
    loss, _ = _step(model)
    loss.backward()
    optimizer.step()
    changed = {key for key, tensor in model.encoder.state_dict().items() if not torch.equal(tensor, before[key])}
    assert {key.rsplit(".", 1)[0].split(".")[1] for key in changed} == {"1", "2"}
    assert all(key.startswith("blocks.") and "running" not in key for key in changed)


def test_all_that_is_trained_has_a_gradient() -> None:
    model = _model()
    loss, _ = _step(model)
    loss.backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)
    assert not any(module.training for module in [*model.encoder.modules(), *model.teacher.modules()])


def test_the_gradient_ranks_perturbed_locations_first() -> None:
    model = _model(eta=10.0)
    first, logged = learn(model, IMAGES)
    assert logged["loss_spd"] < first["loss_spd"] - 0.01
    assert logged["ranking_accuracy"] > first["ranking_accuracy"]


class _Unmoved(nn.Module):
    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        return parts


def test_negatives_differ_where_the_mask_says() -> None:
    model = _model()
    model.noise, model.move = nn.Identity(), _Unmoved()  # type: ignore[assignment]
    torch.manual_seed(2)
    anchor, positive, negative, mask = model.views_and_mask(IMAGES.float() / 255)
    assert anchor.shape == positive.shape == negative.shape == (4, 3, 64, 64)
    assert mask.shape == (4, 1, 64, 64)
    assert 0 < mask.mean() < 0.4
    assert torch.equal((negative - positive).abs().amax(1, keepdim=True) > 0.03, mask == 1)


def test_the_mask_moves_with_the_negative() -> None:
    model = _model()
    model.noise = nn.Identity()  # type: ignore[assignment]
    model.photometric = nn.Sequential(nn.Identity())
    grey = torch.full((4, 3, 72, 72), 0.5)
    grey[:, :, ::2] = 0.6  # what is cut out and turned shows
    for seed in range(4):
        torch.manual_seed(seed)
        _, positive, negative, mask = model.views_and_mask(grey)
        assert not torch.equal(positive, negative)
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        assert all(view.min() >= 0 and view.max() <= 1 for view in (positive, negative))
    assert [view.shape for view in model.views(grey)] == [positive.shape] * 3


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"blocks\.9"):
        _model(layers=("blocks.1", "blocks.9"))


def test_an_architecture_whose_layers_cannot_be_brought_to_equal_rms_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="Cannot rescale layer 'layer1' of ResNet"):
        DenseSPD(backbone="resnet18", pretrained=False, layers=("layer1", "layer2"), frozen=("conv1",))
