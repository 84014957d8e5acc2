"""The losses against their naive forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torch import Tensor

from anomalib_spd.losses import (
    info_nce,
    localization_loss,
    negative_cosine,
    nt_xent,
    patch_distance,
    spd_loss,
    two_way_loss,
)


def test_spd_loss_equals_the_naive_form() -> None:
    torch.manual_seed(0)
    z_a, z_p, z_n = torch.randn(3, 7, 5, dtype=torch.float64)
    naive = 0.0
    for a, p, n in zip(z_a.tolist(), z_p.tolist(), z_n.tolist(), strict=True):

        def sim(u: list[float], v: list[float]) -> float:
            return sum(x * y for x, y in zip(u, v, strict=True)) / (math.hypot(*u) * math.hypot(*v))

        naive += (sim(a, n) - sim(a, p)) / 7
    loss, sim_ap, sim_an = spd_loss(z_a, z_p, z_n)
    assert loss.item() == pytest.approx(naive, abs=1e-12)
    assert loss.item() == pytest.approx((sim_an - sim_ap).item())


def test_spd_loss_range_and_descent() -> None:
    z = torch.eye(4)
    assert spd_loss(z, z, z)[0] == 0
    assert spd_loss(z, z, -z)[0] == -2
    assert spd_loss(z, -z, z)[0] == 2
    torch.manual_seed(0)
    z_a, z_p, z_n = (torch.randn(8, 16, requires_grad=True) for _ in range(3))
    before = spd_loss(z_a, z_p, z_n)[0]
    before.backward()
    with torch.no_grad():
        after = spd_loss(*(z - 0.5 * z.grad for z in (z_a, z_p, z_n)))[0]
    assert after < before


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def sim(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).sum() / (u.norm() * v.norm())


def same_with_gradients(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    pairs = zip(*(torch.autograd.grad(each, inputs) for each in (ours, theirs)), strict=True)
    for of_ours, of_theirs in pairs:
        torch.testing.assert_close(of_ours, of_theirs, rtol=0, atol=1e-9)


def test_two_way_loss_equals_the_naive_form() -> None:
    logits_p, logits_n = random(5, 2), random(5, 2)
    terms = []
    for p, n in zip(logits_p, logits_n, strict=True):
        terms += [-(p[0].exp() / p.exp().sum()).log(), -(n[1].exp() / n.exp().sum()).log()]
    same_with_gradients(two_way_loss(logits_p, logits_n), torch.stack(terms).mean(), [logits_p, logits_n])
    assert two_way_loss(logits_p * 0, logits_n * 0).item() == pytest.approx(math.log(2))
    # the second column says perturbed
    sure = torch.tensor([[9.0, -9.0]])
    assert two_way_loss(sure, sure.flip(1)) < 1e-6
    assert two_way_loss(sure.flip(1), sure) > 17


def test_negative_cosine_equals_the_naive_form_and_stops_the_gradient() -> None:
    p, z = random(6, 5), random(6, 5)
    naive = -torch.stack([sim(u, v.detach()) for u, v in zip(p, z, strict=True)]).mean()
    same_with_gradients(negative_cosine(p, z), naive, [p])
    assert torch.autograd.grad(negative_cosine(p, z), z, allow_unused=True) == (None,)


def test_info_nce_equals_the_naive_form_and_stops_the_gradient_of_keys() -> None:
    q, k, queue = random(4, 5), random(4, 5), random(7, 5)
    terms = []
    for u, v in zip(q, k.detach(), strict=True):
        positive = (sim(u, v) / 0.2).exp()
        terms.append(-(positive / (positive + sum((sim(u, n) / 0.2).exp() for n in queue.detach()))).log())
    same_with_gradients(info_nce(q, k, queue, 0.2), torch.stack(terms).mean(), [q])
    assert torch.autograd.grad(info_nce(q, k, queue, 0.2), (k, queue), allow_unused=True) == (None, None)


def test_nt_xent_equals_the_naive_form() -> None:
    z_1, z_2 = random(4, 5), random(4, 5)
    z = [*z_1, *z_2]
    terms = []
    for i, u in enumerate(z):
        others = [(sim(u, v) / 0.5).exp() for k, v in enumerate(z) if k != i]
        terms.append(-((sim(u, z[(i + 4) % 8]) / 0.5).exp() / sum(others)).log())
    same_with_gradients(nt_xent(z_1, z_2, 0.5), torch.stack(terms).mean(), [z_1, z_2])


def test_losses_equal_lightlys() -> None:
    losses = pytest.importorskip("lightly.loss", reason="compares with lightly: pip install lightly")
    p, z, z_1, z_2 = (random(16, 8) for _ in range(4))
    same_with_gradients(negative_cosine(p, z), losses.NegativeCosineSimilarity()(p, z.detach()), [p])
    same_with_gradients(nt_xent(z_1, z_2, 0.1), losses.NTXentLoss(temperature=0.1)(z_1, z_2), [z_1, z_2])
    theirs = losses.NTXentLoss(temperature=0.2, memory_bank_size=(32, 8))
    theirs.memory_bank.bank = torch.nn.functional.normalize(torch.randn(32, 8, dtype=torch.float64), dim=1)
    theirs.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    queue = theirs.memory_bank.bank.clone()
    same_with_gradients(info_nce(p, z, queue, 0.2), theirs(p, z.detach()), [p])


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
    loss, in_order = localization_loss(distance, changed, temperature=0.5)
    expected = 0.5 * math.log1p(math.exp((math.log(2) - math.log(3)) / 0.5))
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    assert in_order == 1
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
    _, in_order = localization_loss(distance, changed, temperature=0.2, beside=3, pairs=2000)
    share = near.sum() / (1 - changed).sum()
    assert 1 - in_order.item() == pytest.approx(0.5 + 0.5 * share.item(), abs=0.04)


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
    nothing, in_order = localization_loss(distance, torch.zeros(3, 1, 16, 16), temperature=0.2)
    assert (nothing.item(), in_order.item()) == (0, 1)
