"""What all methods share, by way of the supervised one."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from anomalib_spd.pretraining import SupervisedSPD

IMAGES = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])


def _model(**settings: float) -> SupervisedSPD:
    torch.manual_seed(0)
    return SupervisedSPD(backbone="test_efficientnet", pretrained=False, num_classes=3, image_size=32, **settings)


def _step(model: SupervisedSPD) -> tuple[Tensor, dict[str, float]]:
    """Run one training step on a fixed batch with fixed draws; returns the loss and what was logged."""
    logged: dict[str, float] = {}
    model.log = lambda name, value, **_: logged.update({name: torch.as_tensor(value).item()})  # type: ignore[method-assign,assignment]
    torch.manual_seed(1)
    return model.training_step(model.on_after_batch_transfer((IMAGES, LABELS), 0), 0), logged


def test_all_views_go_through_the_encoder_in_one_pass() -> None:
    model = _model()
    passes: list[torch.Size] = []
    model.encoder.register_forward_pre_hook(lambda _, args: passes.append(args[0].shape))
    _step(model)
    # the classified view, anchor, positive and negative
    assert passes == [(4 * 4, 3, 32, 32)]


def test_the_loss_is_its_terms() -> None:
    model = _model(eta=0.3)
    loss, logged = _step(model)
    assert loss.item() == pytest.approx(logged["loss_supervised"] + 0.3 * logged["loss_spd"], abs=1e-6)
    assert logged["loss_spd"] == pytest.approx(logged["sim_an"] - logged["sim_ap"], abs=1e-6)
    assert 0 < logged["z_std"] < 1


def test_the_control_differs_in_nothing_but_the_gradient_of_spd() -> None:
    model, control = _model(eta=0.1), _model(eta=0.0)
    (loss, logged), (control_loss, control_logged) = _step(model), _step(control)
    for name in ("loss_supervised", "loss_spd", "z_std"):
        assert logged[name] == control_logged[name]
    for (name, buffer), (_, other) in zip(model.named_buffers(), control.named_buffers(), strict=True):
        assert torch.equal(buffer, other), name
    loss.backward()
    control_loss.backward()
    weight, control_weight = (m.encoder.conv_stem.weight.grad for m in (model, control))
    assert weight is not None
    assert not torch.equal(weight, control_weight)


def test_the_encoder_sees_imagenet_statistics() -> None:
    model = _model()
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    white = torch.full((4, 3, 48, 48), 255, dtype=torch.uint8)
    model.log = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    model.training_step(model.on_after_batch_transfer((white, LABELS), 0), 0)
    anchor = seen[0][4:8].mean((0, 2, 3))
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(anchor, expected)


def test_the_gradient_of_spd_separates_negatives_from_positives() -> None:
    model = _model(eta=1.0)
    model.method_loss = lambda z, images, labels: z[0].sum() * 0  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(15):  # on the same draws every time
        loss, _ = _step(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < min(losses[0], 0) - 0.05


def test_settings_are_kept_for_whoever_reads_the_checkpoint() -> None:
    assert dict(_model(eta=0.2).hparams)["eta"] == 0.2
    assert dict(_model().hparams)["num_classes"] == 3


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`eta` weighs the SPD term.*-1"):
        _model(eta=-1)


def test_a_checkpoint_is_the_encoder_and_the_head() -> None:
    assert {name.split(".")[0] for name in _model().state_dict()} == {"encoder", "head"}


def test_a_collapse_is_told_once_with_what_to_do() -> None:
    model = _model()
    with pytest.warns(UserWarning, match="the training has collapsed. Start again with a smaller learning rate"):
        model._standard_deviation(torch.ones(4, 16) + 1e-6 * torch.randn(4, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model._standard_deviation(torch.ones(4, 16))
        # what is healthy is no collapse, and neither is a batch of one, of which nothing can be told
        _model()._standard_deviation(torch.randn(64, 16))
        _model()._standard_deviation(torch.randn(1, 16))


def test_a_loss_that_is_not_finite_ends_the_run_with_what_to_do() -> None:
    model = _model()
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"The loss is nan \(supervised: nan.*smaller learning rate"):
        _step(model)


def test_every_step_has_a_seed_of_its_own() -> None:
    model = _model()
    model._trainer = SimpleNamespace(global_rank=0, current_epoch=0)
    draws = {}
    for rank, epoch, batch in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)):
        vars(model._trainer).update(global_rank=rank, current_epoch=epoch)
        torch.manual_seed(7)
        model.on_fit_start()
        torch.rand(batch)  # whatever was drawn before
        model.on_train_batch_start(None, batch)
        draws[rank, epoch, batch] = torch.rand(1).item()
    assert len(set(draws.values())) == 4
    # a run that goes on with the same seed draws the same, one with another does not
    model.on_train_batch_start(None, 0)
    assert torch.rand(1).item() == draws[1, 0, 0]
    torch.manual_seed(8)
    model.on_fit_start()
    model.on_train_batch_start(None, 0)
    assert torch.rand(1).item() != draws[1, 0, 0]


def test_a_shared_weak_view_differs_in_the_perturbation_alone() -> None:
    images = torch.rand(4, 3, 48, 48)
    positive, negative = _model(shared_weak_view=True).views(images)[-2:]
    same = (positive == negative).all(1).flatten(1).float().mean(1)
    assert (same > 0.5).all()
    assert (same < 1).all()
    # two draws have other colors, and other pixels, everywhere
    positive, negative = _model().views(images)[-2:]
    assert (positive == negative).float().mean() < 0.1


def test_anchors_without_a_gradient() -> None:
    z = [torch.randn(4, 8, requires_grad=True) for _ in range(3)]
    for stop_gradient, flows in ((False, True), (True, False)):
        loss = _model(stop_gradient=stop_gradient).difference_loss(*z)[0]
        gradients = torch.autograd.grad(loss, z, allow_unused=True)
        assert [each is not None for each in gradients] == [flows, True, True]
