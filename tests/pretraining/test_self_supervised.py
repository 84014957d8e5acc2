"""SimSiam, MoCo and SimCLR: each method's own loss of its own views, and SPD beside it."""

from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.optim import Lars
from torch import Tensor

from anomalib_spd.losses import info_nce, negative_cosine, nt_xent
from anomalib_spd.pretraining import MoCoSPD, SimCLRSPD, SimSiamSPD, SPDPretraining

SMALL: dict[type[SPDPretraining], dict[str, Any]] = {
    SimSiamSPD: {"projection": 16, "bottleneck": 8},
    SimCLRSPD: {"projection": 8, "hidden": 16},
    MoCoSPD: {"projection": 8, "queue_size": 10},
}
METHODS = list(SMALL)
IMAGES = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(4, dtype=torch.long)


def model_of(method: type[SPDPretraining], **settings: Any) -> Any:
    torch.manual_seed(0)
    model = method(backbone="test_efficientnet", pretrained=False, image_size=32, **{**SMALL[method], **settings})
    model._trainer = SimpleNamespace(world_size=1, estimated_stepping_batches=20, max_epochs=10)
    return model


def step(model: Any, seed: int = 1) -> tuple[Tensor, dict[str, float]]:
    logged: dict[str, float] = {}
    model.log = lambda name, value, **_: logged.update({name: torch.as_tensor(value).item()})
    torch.manual_seed(seed)
    return model.training_step(model.on_after_batch_transfer((IMAGES, LABELS), 0), 0), logged


@pytest.mark.parametrize(("method", "views"), [(SimSiamSPD, 5), (SimCLRSPD, 5), (MoCoSPD, 4)])
def test_all_views_pass_encoder_and_projector_together(method: type[SPDPretraining], views: int) -> None:
    model, passes = model_of(method), []
    for part in (model.encoder, model.projector):
        part.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    step(model)
    assert passes == [4 * views, 4 * views]


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_the_methods_and_eta_times_spd(method: type[SPDPretraining]) -> None:
    loss, logged = step(model_of(method, eta=0.3))
    name = method.__name__.removesuffix("SPD").lower()
    assert loss.item() == pytest.approx(logged[f"loss_{name}"] + 0.3 * logged["loss_spd"], abs=1e-6)
    plain, without = step(model_of(method, eta=0.0))
    assert plain.item() == pytest.approx(without[f"loss_{name}"])
    assert logged[f"loss_{name}"] == without[f"loss_{name}"]


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss(method: type[SPDPretraining]) -> None:
    model = model_of(method, eta=0.1, learning_rate=1e-4, **({"warmup_epochs": 0} if method is SimCLRSPD else {}))
    optimizer = model.configure_optimizers()["optimizer"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss, _ = step(model)
    loss.backward()
    optimizer.step()
    # the queue, the keys' encoder and the statistics have moved too: only what is trained may tell the two losses apart
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    model.load_state_dict({**before, **trained})
    assert step(model)[0] < loss


@pytest.mark.parametrize("method", METHODS)
def test_the_encoder_is_the_backbones(method: type[SPDPretraining]) -> None:
    torch.manual_seed(0)
    bare = timm.create_model("test_efficientnet", num_classes=0)
    own = model_of(method).encoder.state_dict()
    assert own.keys() == bare.state_dict().keys()


def test_simsiam_pairs_predictions_with_the_other_views_projections() -> None:
    model = model_of(SimSiamSPD).eval()
    z_1, z_2 = torch.randn(2, 4, 16)
    expected = (negative_cosine(model.predictor(z_1), z_2) + negative_cosine(model.predictor(z_2), z_1)) / 2
    torch.testing.assert_close(model.method_loss([z_1, z_2], IMAGES, LABELS), expected)


def test_simsiams_predictor_keeps_its_learning_rate() -> None:
    model = model_of(SimSiamSPD, learning_rate=0.4)
    optimizer = model.configure_optimizers()["optimizer"]
    others, predictor = optimizer.param_groups
    assert {id(each) for each in predictor["params"]} == {id(each) for each in model.predictor.parameters()}
    assert predictor["constant"]
    assert len(others["params"]) + len(predictor["params"]) == len([*model.parameters()])


def test_simclr_contrasts_its_two_views() -> None:
    model = model_of(SimCLRSPD, temperature=0.3)
    z_1, z_2 = torch.randn(2, 4, 8)
    torch.testing.assert_close(model.method_loss([z_1, z_2], IMAGES, LABELS), nt_xent(z_1, z_2, 0.3))


def test_simclr_is_trained_by_lars_without_decay_of_biases_and_norms() -> None:
    model = model_of(SimCLRSPD)
    optimizer = model.configure_optimizers()["optimizer"]
    assert isinstance(optimizer, Lars)
    matrices, vectors = optimizer.param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (1e-4, 0)
    assert {each.ndim for each in vectors["params"]} == {1}
    assert len(matrices["params"]) + len(vectors["params"]) == len([*model.parameters()])


def test_mocos_keys_come_from_a_slow_copy_of_the_encoder() -> None:
    model = model_of(MoCoSPD, key_momentum=0.75)
    key, query = model.key_encoder.conv_stem.weight, model.encoder.conv_stem.weight
    assert torch.equal(key, query)
    before = key.clone()
    with torch.no_grad():
        query += 1
    step(model)
    torch.testing.assert_close(key, 0.75 * before + 0.25 * query)
    assert not any(each.requires_grad for each in [*model.key_encoder.parameters(), *model.key_projector.parameters()])


def test_mocos_queue_takes_the_newest_keys_for_its_oldest() -> None:
    model = model_of(MoCoSPD)
    start, keys = model.queue.clone(), []
    model.key_projector.register_forward_hook(lambda _, __, projected: keys.append(F.normalize(projected, dim=1)))
    for number in range(3):
        step(model, seed=number)
    # 12 keys in 10 places: the first two are gone again
    torch.testing.assert_close(model.queue, torch.cat([keys[2][2:], keys[0][2:], keys[1], keys[2][:2]]))
    assert int(model.oldest) == 2
    assert not torch.equal(model.queue, start)


def test_mocos_batch_may_be_larger_than_its_queue() -> None:
    model = model_of(MoCoSPD, queue_size=3)
    _, logged = step(model)
    assert int(model.oldest) == 0
    assert logged["loss_moco"] > 0


def test_moco_contrasts_queries_with_keys_against_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(MoCoSPD, temperature=0.4).eval()
    queue, q = model.queue.clone(), torch.randn(4, 8)
    view = torch.rand(4, 3, 32, 32)
    monkeypatch.setattr(model.moco_view, "forward", lambda images: view)
    k = F.normalize(model.key_projector(model.encode(model.key_encoder, [view])), dim=1)
    torch.testing.assert_close(model.method_loss([q], IMAGES, LABELS), info_nce(q, k, queue, 0.4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"key_momentum": 1.0}, r"`key_momentum` lies within \[0, 1\)"),
        ({"queue_size": 0}, "`queue_size` is the number of keys in the queue"),
    ],
)
def test_what_moco_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_of(MoCoSPD, **settings)
