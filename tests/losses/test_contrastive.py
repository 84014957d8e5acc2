"""The losses of SimSiam, MoCo and SimCLR against their naive forms and lightly's."""

import pytest
import torch

from anomalib_spd.losses import info_nce, negative_cosine, nt_xent
from tests.losses.naive import random, same_with_gradients, sim


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
