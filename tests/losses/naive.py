"""What the tests of losses share: random inputs, and the comparison with a naive form."""

import torch
from torch import Tensor


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def sim(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).sum() / (u.norm() * v.norm())


def same_with_gradients(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    pairs = zip(*(torch.autograd.grad(each, inputs) for each in (ours, theirs)), strict=True)
    for of_ours, of_theirs in pairs:
        torch.testing.assert_close(of_ours, of_theirs, rtol=0, atol=1e-9)
