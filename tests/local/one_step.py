"""A local training on a small network, and one step of it outside a trainer."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class Box(nn.Module):
    """A transform of ours: makes a box of every image brighter, and another one a little."""

    def forward(self, images: Tensor) -> Tensor:
        images = images.clone()
        images[:, 1, 10:20, 30:50] += 0.04  # of one color
        images[:, :, 40:50, 30:50] += 0.02
        return images


def model_of(method: type, **settings: Any) -> Any:
    """The method on a small network, the same weights each time."""
    torch.manual_seed(0)
    layers = {"layers": ("blocks.1", "blocks.2"), "frozen": ("conv_stem", "bn1", "blocks.0")}
    model = method(**{"backbone": "test_efficientnet", "pretrained": False, **layers, **settings})
    model._trainer = SimpleNamespace(world_size=1, global_step=0, estimated_stepping_batches=15)
    return model


def step_of(
    model: Any, images: Tensor, labels: Tensor | None = None, *masks: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """The loss and what was logged, the same draws each time."""
    logged: dict[str, float] = {}
    model.log = lambda name, value, **_: logged.update({name: torch.as_tensor(value).item()})
    torch.manual_seed(1)
    batch = (images, torch.zeros(len(images)) if labels is None else labels, *masks)
    return model.training_step(model.on_after_batch_transfer(batch, 0), 0), logged


def learn(
    model: Any, images: Tensor, labels: Tensor | None = None, *masks: Tensor
) -> tuple[dict[str, float], dict[str, float]]:
    """What was logged before and after some steps on the same draws."""
    _, first = step_of(model, images, labels, *masks)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=2e-3)
    for _ in range(15):
        loss, logged = step_of(model, images, labels, *masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return first, logged
