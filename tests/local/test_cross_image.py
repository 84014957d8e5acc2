"""SPD with a memory of other parts: what is remembered, what is compared with it, and what its gradient does."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anomalib_spd.local import CrossImageSPD
from anomalib_spd.losses import local as losses
from tests.pretraining.one_step import learn, model_of, step_of

IMAGES = torch.randint(0, 256, (7, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MEMORY_DISTANCE = losses.memory_distance
LABELS = torch.tensor([5, 5, 5, 5, 5, -1, -1])


def _model(**settings: Any) -> CrossImageSPD:
    model: CrossImageSPD = model_of(CrossImageSPD, **{"image_size": 96, **settings})
    return model


def _step(model: CrossImageSPD, labels: Tensor = LABELS) -> tuple[Tensor, dict[str, float]]:
    return step_of(model, IMAGES, labels)


def test_the_loss_is_its_terms_and_the_control_has_the_same_views() -> None:
    (loss, logged), (control_loss, control) = _step(_model(eta=0.3)), _step(_model(eta=0.0))
    assert logged["loss_spd"] > 0
    assert loss.item() == pytest.approx(logged["loss_parts"] + 0.3 * logged["loss_spd"], rel=1e-5)
    assert control_loss.item() == pytest.approx(control["loss_parts"])
    assert {key: value for key, value in logged.items() if key != "loss"} == {
        key: value for key, value in control.items() if key != "loss"
    }


@pytest.mark.parametrize("photographs", [0, 2])
def test_half_of_the_parts_is_the_memory_and_photographs_are_in_neither(
    photographs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(memory=10**6)
    model.crop = nn.Sequential(nn.Identity())
    compared: dict[str, Any] = {}

    def noted(embedding: Tensor, memory: Tensor, size: Any) -> Tensor:
        compared.update(embedding=embedding.detach(), memory=memory.detach())
        return MEMORY_DISTANCE(embedding, memory, size)

    def changed(images: Tensor) -> tuple[Tensor, Tensor]:
        compared["changed"] = images.flip(-1)
        return compared["changed"], torch.zeros_like(images[:, :1]).index_fill(3, torch.arange(40, 60), 1)

    monkeypatch.setattr(losses, "memory_distance", noted)
    monkeypatch.setattr(model, "_changed", changed)
    _step(model, torch.where(torch.arange(7) < 7 - photographs, 5, -1))
    parts = IMAGES[: 7 - photographs].float() / 255
    half = len(parts) // 2
    assert torch.equal(compared["changed"], parts[half:].flip(-1))
    with torch.no_grad():
        unit = model.energies.sum().sqrt()
        memory, shown = (
            losses.patch_embedding(model.features(model.encoder, each)) / unit
            for each in (parts[:half], compared["changed"])
        )
    torch.testing.assert_close(compared["embedding"], shown, rtol=1e-4, atol=1e-5)
    places = memory.movedim(1, -1).flatten(0, 2)
    # all of them, in any order
    torch.testing.assert_close(compared["memory"].sort(0)[0], places.sort(0)[0], rtol=1e-4, atol=1e-5)


def test_no_more_places_are_kept_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def noted(embedding: Tensor, memory: Tensor, size: Any) -> Tensor:
        sizes.append(len(memory))
        return MEMORY_DISTANCE(embedding, memory, size)

    monkeypatch.setattr(losses, "memory_distance", noted)
    _step(_model(memory=17))
    assert sizes == [17]


def test_energies_and_the_distillation_are_of_photographs_where_there_are_some() -> None:
    """Of one kind of part the energies would be any."""
    model = _model()
    model.crop = nn.Sequential(nn.Identity())
    _step(model)
    maps = model.features(model.teacher, IMAGES[5:].float() / 255)
    torch.testing.assert_close(model.energies, torch.stack([each.square().sum(1).mean() for each in maps]))
    torch.testing.assert_close(model.energies[0], model.energies[1])

    before = {name: each.clone() for name, each in model.encoder.named_parameters()}
    optimizer = torch.optim.SGD(model.encoder.parameters(), 0.1)
    model.eta = 0.0
    with torch.no_grad():
        for each in model.encoder.parameters():
            each.mul_(1.0 + 0.01 * each.requires_grad)
    loss, _ = _step(model)
    model._changed = lambda images: (torch.rand_like(images), torch.ones_like(images[:, :1]))  # type: ignore[method-assign]
    assert _step(model)[0].item() == pytest.approx(loss.item())  # changed ones are no part of it
    loss.backward()
    optimizer.step()
    assert _step(model)[0] < loss
    assert any(not torch.equal(each, before[name]) for name, each in model.encoder.named_parameters())


def test_crops_are_of_the_same_place() -> None:
    image = torch.rand(1, 3, 112, 112)
    remembered, changed = _model().views(image.expand(5, 3, 112, 112))
    assert remembered.shape == changed.shape == (5, 3, 96, 96)
    assert torch.equal(remembered, remembered[:1].expand_as(remembered))
    assert (remembered != changed).flatten(1).any(1).all()


def test_the_gradient_puts_changes_before_false_alarms() -> None:
    model = _model(eta=10.0)
    first, logged = learn(model, IMAGES, LABELS)
    assert logged["loss_spd"] < first["loss_spd"] - 0.01
    assert logged["in_order"] > first["in_order"]


def test_all_that_is_trained_has_a_gradient_and_the_networks_stay_in_eval_mode() -> None:
    model = _model()
    loss, _ = _step(model)
    loss.backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)
    assert not any(module.training for module in [*model.encoder.modules(), *model.teacher.modules()])


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 0, -1, -1], [3, -1, -1, -1, -1, -1, -1]])
def test_batches_of_several_kinds_or_of_one_part_are_refused(labels: list[int]) -> None:
    with pytest.raises(
        ValueError, match=r"two or more parts of one kind\. Got labels .*CategoryFolder or SyntheticParts"
    ):
        _step(_model(), torch.tensor(labels))


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`memory` is at least 1\. Got 0"):
        _model(memory=0)
