"""SPD with a memory of other parts: what the memory holds, what is compared with it, and what its gradient does."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anomalib_spd.local import CrossImageSPD
from anomalib_spd.losses import local as losses
from tests.local.one_step import Box, learn, model_of, step_of

IMAGES = torch.randint(0, 200, (7, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
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
    assert loss.item() == pytest.approx(logged["loss_distillation"] + 0.3 * logged["loss_spd"], rel=1e-5)
    assert control_loss.item() == pytest.approx(control["loss_distillation"])
    assert {key: value for key, value in logged.items() if key != "loss"} == {
        key: value for key, value in control.items() if key != "loss"
    }


@pytest.mark.parametrize("replayed", [0, 2])
def test_half_of_the_parts_is_the_memory_and_replay_images_are_in_neither(
    replayed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(memory=10**6, local_augmentations=[Box()], num_perturbations=1)
    model.crop = nn.Sequential(nn.Identity())
    compared: dict[str, Any] = {}

    def recorded(query: Tensor, memory: Tensor, size: Any) -> Tensor:
        compared.update(query=query.detach(), memory=memory.detach())
        return MEMORY_DISTANCE(query, memory, size)

    monkeypatch.setattr(losses, "memory_distance", recorded)
    _step(model, torch.where(torch.arange(7) < 7 - replayed, 5, -1))
    parts = IMAGES[: 7 - replayed].float() / 255
    half = len(parts) // 2
    with torch.no_grad():
        rms = model.mean_square.sum().sqrt()
        memory, query = (
            losses.patch_embedding(model.features(model.encoder, each)) / rms
            for each in (parts[:half], Box()(parts[half:]))
        )
    torch.testing.assert_close(compared["query"], query, rtol=1e-4, atol=1e-5)
    embeddings = memory.movedim(1, -1).flatten(0, 2)
    # all of them, in any order
    torch.testing.assert_close(compared["memory"].sort(0)[0], embeddings.sort(0)[0], rtol=1e-4, atol=1e-5)


def test_the_memory_is_no_larger_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def recorded(query: Tensor, memory: Tensor, size: Any) -> Tensor:
        sizes.append(len(memory))
        return MEMORY_DISTANCE(query, memory, size)

    monkeypatch.setattr(losses, "memory_distance", recorded)
    _step(_model(memory=17))
    assert sizes == [17]


def test_mean_squares_are_of_replay_images_where_there_are_some() -> None:
    """Of one category of parts they would be any."""
    model = _model()
    model.crop = nn.Sequential(nn.Identity())
    _step(model)
    maps = model.features(model.teacher, IMAGES[5:].float() / 255)
    torch.testing.assert_close(model.mean_square, losses.mean_square(maps))
    torch.testing.assert_close(model.mean_square[0], model.mean_square[1])


def test_the_distillation_does_not_see_perturbed_images() -> None:
    losses_of = []
    for transform in (Box(), nn.Identity()):
        model = _model(eta=0.0, local_augmentations=[transform])
        model.crop = nn.Sequential(nn.Identity())
        _step(model)
        with torch.no_grad():
            for each in model.encoder.parameters():
                each.mul_(1.0 + 0.01 * each.requires_grad)
        loss, _ = _step(model)
        losses_of.append(loss.item())
    assert losses_of[0] == pytest.approx(losses_of[1])
    optimizer = torch.optim.SGD(model.encoder.parameters(), 0.1)
    loss.backward()
    optimizer.step()
    assert _step(model)[0] < loss


def test_crops_are_of_the_same_location() -> None:
    image = torch.rand(1, 3, 112, 112)
    crops, perturbed = _model().views(image.expand(5, 3, 112, 112))
    assert crops.shape == perturbed.shape == (5, 3, 96, 96)
    assert torch.equal(crops, crops[:1].expand_as(crops))
    assert (crops != perturbed).flatten(1).any(1).all()


def test_the_gradient_ranks_perturbations_above_false_alarms() -> None:
    model = _model(eta=10.0)
    first, logged = learn(model, IMAGES, LABELS)
    assert logged["loss_spd"] < first["loss_spd"] - 0.01
    assert logged["ranking_accuracy"] > first["ranking_accuracy"]


def test_all_that_is_trained_has_a_gradient_and_the_networks_stay_in_eval_mode() -> None:
    model = _model()
    loss, _ = _step(model)
    loss.backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)
    assert not any(module.training for module in [*model.encoder.modules(), *model.teacher.modules()])


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 0, -1, -1], [3, -1, -1, -1, -1, -1, -1]])
def test_batches_of_several_categories_or_of_one_part_are_refused(labels: list[int]) -> None:
    with pytest.raises(
        ValueError, match=r"two or more parts of one category\. Got labels .*CategoryFolder or SyntheticParts"
    ):
        _step(_model(), torch.tensor(labels))


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`memory` is at least 1\. Got 0"):
        _model(memory=0)
