"""The losses against their naive forms."""

import math

import pytest
import torch

from anomalib_spd.losses import spd_loss


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
