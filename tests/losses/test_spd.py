"""SPD's losses on pooled features against their naive forms."""

import math

import pytest
import torch

from anomalib_spd.losses import spd_loss, two_way_loss
from tests.losses.naive import random, same_with_gradients


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
