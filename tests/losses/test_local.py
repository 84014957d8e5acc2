"""The losses on maps against their naive forms and PatchCore."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torch import Tensor

from anomalib_spd.losses import (
    anomaly_map,
    detection_loss,
    distillation,
    localization_loss,
    memory_distance,
    patch_distance,
    patch_embedding,
)
from tests.losses.naive import random, same_with_gradients


def test_patch_distance_is_patchcores_map_with_the_positive_for_a_memory_bank() -> None:
    """A positive that is everywhere alike has but one embedding, whichever places are compared."""
    torch.manual_seed(0)
    negative = [torch.randn(1, 5, 12, 12), torch.randn(1, 7, 6, 6)]
    positive = [torch.full_like(each, 0.3 * place) for place, each in enumerate(negative)]
    distance = patch_distance([torch.cat(pair) for pair in zip(positive, negative, strict=True)], (48, 48))

    patchcore = PatchcoreModel(["blocks.1", "blocks.2"], "test_efficientnet", pre_trained=False)
    maps = [F.avg_pool2d(each, 3, 1, 1) for each in negative]
    embedding = patchcore.generate_embedding(dict(zip(patchcore.layers, maps, strict=True)))
    # the pooled border of a constant map is not constant, as zeros are outside
    bank = patchcore.generate_embedding(
        dict(zip(patchcore.layers, [F.avg_pool2d(each, 3, 1, 1) for each in positive], strict=True))
    )
    patchcore.memory_bank = patchcore.reshape_embedding(bank[:, :, 5:6, 5:6])
    scores, _ = patchcore.nearest_neighbors(patchcore.reshape_embedding(embedding), n_neighbors=1)
    expected = patchcore.anomaly_map_generator(scores.reshape(1, 1, 12, 12), (48, 48))[0, 0]
    inside = (slice(20, 28), slice(20, 28))  # farther from the border than blur and neighbours reach in force
    torch.testing.assert_close(distance[0][inside], expected[inside], rtol=5e-2, atol=0)


def test_a_shift_by_one_place_is_no_distance() -> None:
    torch.manual_seed(0)
    positive = torch.randn(2, 4, 10, 10)
    negative = positive.roll((1, -1), dims=(2, 3))
    distance = patch_distance([torch.cat([positive, negative])], (20, 20))
    other = patch_distance([torch.cat([positive, positive.roll((3, 3), dims=(2, 3))])], (20, 20))
    assert distance.shape == (2, 20, 20)
    assert distance.mean() < other.mean() / 2


def test_localization_loss_of_all_pairs() -> None:
    """With one changed and, of those drawn, one unchanged value, whichever pairs are drawn."""
    changed = torch.zeros(2, 1, 20, 20, dtype=torch.float64)
    changed[:, :, 4:9, 4:9] = 1
    distance = torch.where(changed[:, 0] > 0, 3.0, 2.0).double()
    loss, ranking_accuracy = localization_loss(distance, changed, temperature=0.5)
    expected = 0.5 * math.log1p(math.exp((math.log(2) - math.log(3)) / 0.5))
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    assert ranking_accuracy == 1
    # only ratios count
    assert localization_loss(7 * distance, changed, temperature=0.5)[0].item() == pytest.approx(expected, abs=1e-9)
    assert localization_loss(1 / distance, changed, temperature=0.5)[1] == 0


def test_half_of_the_unchanged_places_lie_beside_a_change() -> None:
    torch.manual_seed(0)
    changed = torch.zeros(1, 1, 60, 60)
    changed[:, :, 25:35, 25:35] = 1
    near = F.max_pool2d(changed, 7, 1, 3)[:, 0] - changed[:, 0]
    # pairs with a place beside it are out of order, all others in order
    distance = 2 + 2 * near - changed[:, 0] * 0 + 1 * changed[:, 0]
    _, ranking_accuracy = localization_loss(distance, changed, temperature=0.2, rim=3, pairs=2000)
    share = near.sum() / (1 - changed).sum()
    assert 1 - ranking_accuracy.item() == pytest.approx(0.5 + 0.5 * share.item(), abs=0.04)


def test_images_without_a_change_count_for_nothing() -> None:
    torch.manual_seed(0)
    changed = torch.zeros(3, 1, 16, 16)
    changed[0, :, 3:6, 3:6] = 1
    changed[2] = 1
    distance = (torch.rand(3, 16, 16) + 0.1).requires_grad_()
    loss, _ = localization_loss(distance, changed, temperature=0.2)
    loss.backward()
    assert distance.grad is not None
    assert [bool(each.any()) for each in distance.grad] == [True, False, False]
    nothing, ranking_accuracy = localization_loss(distance, torch.zeros(3, 1, 16, 16), temperature=0.2)
    assert (nothing.item(), ranking_accuracy.item()) == (0, 1)


def test_the_distillation_equals_the_naive_form() -> None:
    shapes = [(2, 5, 4, 3), (2, 7, 2, 2)]
    maps, teacher_maps = [random(*shape) for shape in shapes], [random(*shape).detach() for shape in shapes]
    mean_squares, terms = [], []
    for each, target in zip(maps, teacher_maps, strict=True):
        places = [(image, y, x) for image in range(2) for y in range(each.shape[2]) for x in range(each.shape[3])]
        mean_squares.append(sum(target[i, :, y, x].norm() ** 2 for i, y, x in places) / len(places))
        squares = sum((each[i, :, y, x] - target[i, :, y, x]).norm() ** 2 for i, y, x in places)
        terms.append(squares / len(places) / mean_squares[-1])
    naive, ours = torch.stack(terms), distillation(maps, teacher_maps, torch.stack(mean_squares))
    torch.testing.assert_close(ours, naive, rtol=0, atol=1e-9)
    weights = torch.tensor([0.3, 2.0], dtype=torch.float64)  # of each layer, lest one hide the other
    same_with_gradients((weights * ours).sum(), (weights * naive).sum(), maps)
    # nothing is as far from the teacher as the teacher from nothing
    gone = distillation([0 * each for each in maps], teacher_maps, torch.stack(mean_squares))
    assert gone.tolist() == pytest.approx([1, 1])
    assert not distillation(teacher_maps, teacher_maps, torch.stack(mean_squares)).any()


def patchcore(layers: int) -> Any:
    names = ["blocks.0", "blocks.1", "blocks.2"][:layers]
    return PatchcoreModel(names, "test_efficientnet", pre_trained=False)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_embedding_of_places_is_patchcores(layers: int) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 5, 13, 18), torch.randn(2, 3, 7, 9), torch.randn(2, 4, 4, 5)][:layers]
    stock = patchcore(layers)
    pooled = {name: stock.feature_pooler(each) for name, each in zip(stock.layers, maps, strict=True)}
    torch.testing.assert_close(patch_embedding(maps), stock.generate_embedding(pooled), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(20, 26), (50, 70)])
def test_the_map_is_smoothed_as_patchcores(size: tuple[int, int]) -> None:
    """Anomalib enlarges by repeating places, we in between them: of places that are pixels both are one."""
    torch.manual_seed(0)
    distances = torch.rand(3, 20, 26)
    enlarged = F.interpolate(distances[:, None], size=size, mode="bilinear")
    ours = anomaly_map(distances, size)
    assert ours.shape == (3, *size)
    torch.testing.assert_close(ours, patchcore(1).anomaly_map_generator(enlarged, size)[:, 0], rtol=0, atol=1e-5)


def test_the_distance_from_a_memory_is_patchcores() -> None:
    torch.manual_seed(0)
    embedding, memory = torch.randn(3, 6, 20, 26), torch.randn(40, 6)
    stock = patchcore(1)
    stock.memory_bank = memory
    scores, nearest = stock.nearest_neighbors(stock.reshape_embedding(embedding), n_neighbors=1)
    assert len(nearest.unique()) > 30
    expected = stock.anomaly_map_generator(scores.reshape(3, 1, 20, 26), (20, 26))[:, 0]
    torch.testing.assert_close(memory_distance(embedding, memory, (20, 26)), expected, rtol=0, atol=1e-5)


def test_its_gradient_reaches_places_and_memory_as_that_of_the_naive_form_does() -> None:
    embedding, memory = random(2, 4, 17, 18), random(9, 4)
    squares = (embedding.movedim(1, -1)[..., None, :] - memory).square().sum(-1).amin(-1)
    naive = anomaly_map((squares + 1e-6).sqrt(), (24, 30))
    weights = torch.rand(2, 24, 30, dtype=torch.float64)
    ours = memory_distance(embedding, memory, (24, 30))
    same_with_gradients((weights * ours).sum(), (weights * naive).sum(), [embedding, memory])


def test_places_that_are_in_the_memory_are_near_and_do_no_harm() -> None:
    memory = random(18 * 18, 4)
    embedding = memory.detach().T.view(1, 4, 18, 18).clone().requires_grad_()
    distance = memory_distance(embedding, memory, (36, 36))
    assert distance.min() > 0
    assert distance.max() < 2e-3
    assert all(each.isfinite().all() for each in torch.autograd.grad(distance.log().sum(), [embedding, memory]))


SIDE = 40
TAU = 0.3


def batch(*kinds: str) -> tuple[Tensor, Tensor]:
    """Distances of images, and masks: a spot, dots that everything is near to, none, or all of it."""
    torch.manual_seed(0)
    distance = torch.rand(len(kinds), SIDE, SIDE, dtype=torch.float64) * 2 + 0.2
    changed = torch.zeros(len(kinds), 1, SIDE, SIDE, dtype=torch.float64)
    for image, kind in zip(changed[:, 0], kinds, strict=True):
        if kind == "spot":
            image[5:11, 20:27] = 1
        elif kind == "dots":
            image[3::7, 3::7] = 1
        elif kind == "all":
            image[:] = 1
    return distance, changed


def expected_detection(distance: Tensor, changed: Tensor, hardest: float, rim_width: int) -> tuple[float, float]:
    """What the loss is on average, and the share in order, from all pairs that can be drawn."""
    found, rims, alarms = [], [], []
    for values, mask in zip(distance.tolist(), changed[:, 0].tolist(), strict=True):
        mine, rim, far = [], [], []
        spots = [(y, x) for y in range(SIDE) for x in range(SIDE) if mask[y][x]]
        for y in range(SIDE):
            for x in range(SIDE):
                if mask[y][x]:
                    mine.append(values[y][x])
                elif any(abs(y - v) <= rim_width and abs(x - u) <= rim_width for v, u in spots):
                    rim.append(values[y][x])
                else:
                    far.append(values[y][x])
        alarms += sorted(far)[::-1][: int(hardest * SIDE**2)]
        if mine and rim:
            found.append(mine)
            rims.append(rim)
    losses, orders = [], []
    for mine, rim in zip(found, rims, strict=True):
        for others in (alarms, rim):
            one, other = torch.meshgrid(torch.tensor(mine).double(), torch.tensor(others).double(), indexing="ij")
            losses.append((TAU * (1 + (other / one) ** (1 / TAU)).log()).mean().item())
        orders.append((torch.tensor(mine)[:, None] > torch.tensor(alarms)).double().mean().item())
    return sum(losses) / len(losses), sum(orders) / len(orders)


@pytest.mark.parametrize("kinds", [("spot",), ("spot", "none", "spot"), ("dots", "spot"), ("all", "spot")])
def test_detection_loss_is_the_mean_of_all_pairs(kinds: tuple[str, ...]) -> None:
    distance, changed = batch(*kinds)
    distance[0] *= 3  # its false alarms are those of the others too
    settings: Any = {"hardest": 0.1, "rim": 3}
    draws = [torch.stack(detection_loss(distance, changed, TAU, **settings, pairs=64)) for _ in range(100)]
    error = torch.stack(draws).std(0) / 100**0.5
    assert (error < 0.02).all()  # so that what follows says something
    mean = torch.stack(draws).mean(0)
    expected = torch.tensor(expected_detection(distance, changed, settings["hardest"], settings["rim"])).double()
    assert ((mean - expected).abs() < 4 * error).all(), (mean, expected, error)


def test_only_ratios_of_distances_to_a_memory_count() -> None:
    distance, changed = batch("spot", "spot")
    losses = []
    for factor in (1, 7):
        torch.manual_seed(1)
        losses.append(detection_loss(factor * distance, changed, TAU)[0].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_what_stands_out_costs_nothing_and_what_does_not_is_mended() -> None:
    _, changed = batch("spot", "spot")
    order = torch.where(changed[:, 0] > 0, 50.0, 1.0).double()
    loss, ranking_accuracy = detection_loss(order, changed, TAU)
    assert 0 <= loss.item() < 1e-5
    assert ranking_accuracy == 1

    logs = (-order.log()).requires_grad_()
    loss, ranking_accuracy = detection_loss(logs.exp(), changed, TAU)
    assert loss.item() == pytest.approx(math.log(50), rel=1e-5)
    assert ranking_accuracy == 0
    (gradient,) = torch.autograd.grad(loss, logs)
    inside = changed[:, 0] > 0
    assert (gradient[inside] <= 0).all()
    assert (gradient[~inside] >= 0).all()
    assert -gradient[inside].sum().item() == pytest.approx(1, rel=1e-5)
    optimizer = torch.optim.Adam([logs], lr=0.2)
    for _ in range(60):
        loss, ranking_accuracy = detection_loss(logs.exp(), changed, TAU, pairs=64)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ranking_accuracy > 0.99


@pytest.mark.parametrize("kinds", [("none", "none"), ("dots", "dots"), ("all", "none"), ("all", "all")])
def test_without_changes_or_false_alarms_there_is_nothing_to_learn(kinds: tuple[str, ...]) -> None:
    distance, changed = batch(*kinds)
    distance.requires_grad_()
    loss, ranking_accuracy = detection_loss(distance, changed, TAU)
    assert (loss.item(), ranking_accuracy.item()) == (0, 1)
    (gradient,) = torch.autograd.grad(loss, distance)
    assert not gradient.any()  # and no NaN, which is not 0


def test_images_count_for_what_they_show() -> None:
    """One without a change gives false alarms, one that is all change nothing."""
    distance, changed = batch("spot", "none", "all")
    distance.requires_grad_()
    (gradient,) = torch.autograd.grad(detection_loss(distance, changed, TAU)[0], distance)
    assert gradient.isfinite().all()
    spot, none, everything = gradient
    assert (spot < 0).any()
    assert (spot > 0).any()
    assert (none > 0).any()
    assert not (none < 0).any()
    assert not everything.any()
