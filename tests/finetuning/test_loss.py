"""The loss of a fine-tuning is a cross-entropy, and what is logged is true."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.finetuning.test_patch_classification import noise, seeing, small


def step(model: Any, views: list[Tensor] | None = None) -> tuple[Tensor, Tensor, dict[str, float]]:
    """The loss of a step, its logits, and what is logged."""
    logged: dict[str, float] = {}
    logits: list[Tensor] = []
    model.log = lambda name, value, **_: logged.update({name: torch.as_tensor(value).item()})
    if views is not None:
        model.views = lambda images: views
    hook = model.head.register_forward_hook(lambda *args: logits.append(args[-1].detach()))
    model._trainer = None
    loss = model.training_step((noise(), torch.zeros(4, dtype=torch.int64)), 0)
    hook.remove()
    (only,) = logits
    return loss, only, logged


def entropy(logits: Tensor, label: int) -> float:
    """The mean cross-entropy of inputs that are all of one class, by its definition."""
    powers = logits.double().exp()
    return float(-(powers[:, label] / powers.sum(1)).log().mean())


@pytest.mark.parametrize("ways", [2, 3])
@pytest.mark.parametrize("all_levels", [False, True])
@pytest.mark.parametrize("frozen_steps", [0, 1])
def test_it_is_the_mean_cross_entropy_of_the_classes(ways: Any, all_levels: bool, frozen_steps: int) -> None:
    model, _ = seeing(ways=ways, all_levels=all_levels, frozen_steps=frozen_steps)
    loss, logits, logged = step(model)
    levels = 3 if all_levels else 1
    # positives, then the levels of one class after the other
    parts = logits.split([4, *[4 * levels] * (ways - 1)])
    expected = sum(entropy(part, label) for label, part in enumerate(parts)) / ways
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert logged.pop("loss") == loss.item()
    shares = [float((part.argmax(1) == label).double().mean()) for label, part in enumerate(parts)]
    names = ["accuracy_normal", "accuracy_patch", "accuracy_scar"][:ways]
    assert logged == pytest.approx(dict(zip(names, shares, strict=True)))
    loss.backward()
    trained = {name.partition(".")[0] for name, each in model.named_parameters() if each.grad is not None}
    assert trained == ({"head"} if frozen_steps else {"encoder", "head"})


@pytest.mark.parametrize("ways", [2, 3])
def test_the_form_of_all_levels_is_the_mean_of_those_that_are_drawn(ways: Any) -> None:
    model = small(ways=ways, all_levels=True).eval()
    positive, *negatives = (noise() * share for share in torch.linspace(1, 0.2, 1 + 3 * (ways - 1)))
    with torch.no_grad():  # else so near to log 3 that nothing is seen
        model.head[-1].weight.mul_(50)
    together = step(model, [positive, *negatives])[0].item()
    drawn = [step(model, [positive, *negatives[level::3]])[0].item() for level in range(3)]
    assert max(drawn) - min(drawn) > 1e-3
    assert together == pytest.approx(sum(drawn) / 3, abs=1e-5)


def test_all_inputs_go_through_the_encoder_at_once() -> None:
    """Batch norm is not to tell which are which."""
    model = small()
    sizes = []
    model.encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    step(model)
    assert sizes == [12]


def test_its_gradient_tells_classes_apart() -> None:
    model = small(frozen_steps=0).train()
    views = [torch.full((4, 3, 32, 32), grey) + 0.1 * torch.rand(4, 3, 32, 32) for grey in (0.1, 0.5, 0.9)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    losses = []
    for _ in range(15):
        loss, _, logged = step(model, views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert sum(logged[f"accuracy_{name}"] for name in ("normal", "patch", "scar")) > 2.5


def test_a_loss_that_is_no_number_is_refused() -> None:
    model = small()
    model.head[-1].bias.data[1] = torch.inf
    with pytest.raises(FloatingPointError, match=r"The loss is (nan|inf) \(normal: .*, negative: "):
        step(model)
