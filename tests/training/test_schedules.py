"""Learning rates over the steps of a run."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from anomalib_spd.training.schedules import cosine


@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_the_schedule_rises_and_falls_and_leaves_constant_groups_alone(warmup_epochs: int) -> None:
    trainer: Any = SimpleNamespace(estimated_stepping_batches=40, max_epochs=10)
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "constant": True}], lr=0.5)
    made: Any = cosine(trainer, optimizer, warmup_epochs)
    schedule = made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[1]["lr"] == 0.5
        optimizer.step()
        schedule.step()
    warmup = 4 * warmup_epochs
    expected = [0.5 * (step + 1) / warmup for step in range(warmup)]
    rest = range(40 - warmup)
    expected += [0.25 * (1 + math.cos(math.pi * step / len(rest))) for step in rest]
    assert rates == pytest.approx(expected)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)
