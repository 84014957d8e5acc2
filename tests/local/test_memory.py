"""SPD with a memory: what is remembered, what is compared with it, and what its gradient does."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anomalib_spd.local import MemorySPD
from anomalib_spd.losses import local as losses
from tests.pretraining.one_step import learn, model_of, step_of

IMAGES = torch.randint(0, 256, (4, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _model(**settings: Any) -> MemorySPD:
    model: MemorySPD = model_of(MemorySPD, **{"image_size": 96, **settings})
    return model


def _step(model: MemorySPD) -> tuple[Tensor, dict[str, float]]:
    return step_of(model, IMAGES)


def test_the_loss_is_its_terms_and_the_control_has_the_same_views() -> None:
    (loss, logged), (control_loss, control) = _step(_model(eta=0.3)), _step(_model(eta=0.0))
    assert logged["loss_spd"] > 0
    assert loss.item() == pytest.approx(logged["loss_memory"] + 0.3 * logged["loss_spd"], rel=1e-5)
    assert control_loss.item() == pytest.approx(control["loss_memory"])
    assert {key: value for key, value in logged.items() if key != "loss"} == {
        key: value for key, value in control.items() if key != "loss"
    }


@pytest.mark.parametrize("views", [1, 3])
def test_each_image_has_a_memory_of_its_own_views(views: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is all places of them, and nothing of the other images."""
    model = _model(memory_views=views)
    compared: list[tuple[Tensor, Tensor]] = []

    def recorded(embedding: Tensor, memory: Tensor, size: Any) -> Tensor:
        compared.append((embedding, memory))
        return losses.memory_distance(embedding, memory, size)

    made: list[list[Tensor]] = []
    seen = model._seen
    monkeypatch.setattr("anomalib_spd.local.memory.memory_distance", recorded)
    monkeypatch.setattr(model, "_seen", lambda images: made.append(seen(images)) or made[-1])
    _step(model)
    *remembered, negative, _ = made[0]
    assert len(remembered) == views
    assert len(compared) == len(IMAGES)
    for number, (embedding, memory) in enumerate(compared):
        of_image = torch.stack([each[number] for each in [*remembered, negative]])
        with torch.no_grad():
            maps = model.features(model.encoder, of_image)
        expected = losses.patch_embedding(maps) / model.energies.sum().sqrt()
        torch.testing.assert_close(embedding, expected[-1:], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(memory, expected[:-1].movedim(1, -1).flatten(0, 2), rtol=1e-4, atol=1e-5)


def test_the_gradient_puts_changes_before_false_alarms() -> None:
    model = _model(eta=10.0)
    first, logged = learn(model, IMAGES)
    assert logged["loss_spd"] < first["loss_spd"] - 0.01
    assert logged["in_order"] > first["in_order"]


def test_all_that_is_trained_has_a_gradient_and_the_networks_stay_in_eval_mode() -> None:
    model = _model()
    loss, _ = _step(model)
    loss.backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)
    assert not any(module.training for module in [*model.encoder.modules(), *model.teacher.modules()])


def test_negatives_differ_where_the_mask_says() -> None:
    model = _model(memory_views=1)
    model.move, model.photometric = nn.Identity(), nn.Sequential(nn.Identity())  # type: ignore[assignment]
    torch.manual_seed(2)
    view, negative, mask = model._seen(IMAGES.float() / 255)
    assert view.shape == negative.shape == (4, 3, 96, 96)
    assert mask.shape == (4, 1, 96, 96)
    assert 0 < mask.mean() < 0.4
    assert torch.equal((negative - view).abs().amax(1, keepdim=True) > 0.03, mask == 1)


def test_views_differ_from_each_other_and_stay_in_range() -> None:
    *views, negative = _model(memory_views=3).views(IMAGES.float() / 255)
    assert len(views) == 3
    assert all(each.min() >= 0 and each.max() <= 1 for each in (*views, negative))
    assert not any(torch.equal(views[0], each) for each in (*views[1:], negative))


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`memory_views` is at least 1\. Got 0"):
        _model(memory_views=0)
