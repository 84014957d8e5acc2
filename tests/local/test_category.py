"""Adaptation to a category: what the memory holds, what is compared with it, what is trained, and what stays."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from anomalib_spd.augmentation import RandomCutPaste, RandomCutSwap, RandomCutSwapScar, RandomSmoothBlend
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.local import CategoryAdaptation
from anomalib_spd.losses import local as losses
from anomalib_spd.losses import patch_embedding
from tests.finetuning.spots import SIDE, near, take_for_salient
from tests.local.one_step import Box
from tests.local.one_step import model_of as build

# the first pixels of two spots of 3 x 3, of each level's map
SPOTS = [((2, 2), (40, 40)), ((4, 40), (40, 6))]
# the longest side of a swapped patch, pixels
REACH = math.ceil((0.05 / 0.3) ** 0.5 * SIDE)
LOCATIONS = (SIDE // 4) ** 2  # of an image's map of blocks.1


def noise(batch: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(batch, 3, SIDE // 4, SIDE // 4, generator=generator)
    fine = torch.rand(batch, 3, SIDE, SIDE, generator=generator)
    return torch.nn.functional.interpolate(coarse, scale_factor=4) * 0.8 + fine * 0.2


def model_of(**settings: Any) -> Any:
    """A small untrained one; no classifier is loaded, unless it is asked for."""
    return build(CategoryAdaptation, **{"classifier": None, **settings})


def step(model: Any, batch: int = 4) -> tuple[Tensor, dict[str, float]]:
    """The loss of a step, always on the same draws, and what is logged."""
    logged: dict[str, float] = {}
    model.log = lambda name, value, **_: logged.update({name: torch.as_tensor(value).item()})
    torch.manual_seed(1)
    return model.training_step((noise(batch), torch.zeros(batch)), 0), logged


def train(model: Any, steps: int) -> list[dict[str, float]]:
    """What is logged of so many steps, with the optimiser and the rate that the model asks for."""
    model._trainer = SimpleNamespace(estimated_stepping_batches=steps)
    asked: Any = model.configure_optimizers()
    optimizer, scheduler = asked["optimizer"], asked["lr_scheduler"]["scheduler"]
    assert asked["lr_scheduler"]["interval"] == "step"
    everything = []
    for _ in range(steps):
        loss, logged = step(model.train())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        everything.append(logged)
    return everything


def state_of(network: Any) -> dict[str, Tensor]:
    return {key: each.clone() for key, each in network.state_dict().items()}


def moved_of(before: dict[str, Tensor], network: Any) -> set[str]:
    return {key for key, each in network.state_dict().items() if not torch.equal(each, before[key])}


def test_the_layers_that_are_read_are_trained_and_all_else_stays() -> None:
    model = model_of()
    before = state_of(model.encoder)
    train(model, 3)
    moved = moved_of(before, model.encoder)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    read = {key for key in before if key.startswith(("blocks.1.", "blocks.2."))}
    assert moved == {key for key in read if not key.endswith(statistics)}
    assert not moved_of(before, model.teacher)


def test_all_that_is_trained_has_a_gradient_and_is_given_to_the_optimiser() -> None:
    model = model_of()
    step(model)[0].backward()
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"encoder"}
    assert all(each.grad is not None and each.grad.any() for each in trained.values())
    model._trainer = SimpleNamespace(estimated_stepping_batches=3)
    (group,) = model.configure_optimizers()["optimizer"].param_groups
    assert {id(each) for each in group["params"]} == {id(each) for each in trained.values()}


def test_the_networks_stay_in_eval_mode() -> None:
    model = model_of()
    for mode in (True, False, True):
        assert model.train(mode) is model
        assert model.training == model.perturbation.training == mode
        assert not any(module.training for network in (model.encoder, model.teacher) for module in network.modules())


def test_the_rate_goes_through_one_cycle() -> None:
    model, steps = model_of(learning_rate=0.02, weight_decay=0.3), 50
    model._trainer = SimpleNamespace(estimated_stepping_batches=steps)
    asked: Any = model.configure_optimizers()
    optimizer, scheduler = asked["optimizer"], asked["lr_scheduler"]["scheduler"]
    (group,) = optimizer.param_groups
    rates = []
    for _ in range(steps):
        rates.append(group["lr"])
        optimizer.step()
        scheduler.step()
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.02, rel=1e-6)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < top < steps / 2
    assert rates[-1] < 1e-5 < rates[0] < 0.1 * max(rates)
    assert group["weight_decay"] == 0.3


def test_without_detection_and_weight_decay_nothing_is_changed() -> None:
    model = model_of(eta=0.0, weight_decay=0.0)
    assert [logged["loss"] for logged in train(model, 4)] == [0] * 4
    assert not moved_of(state_of(model.teacher), model.encoder)


def test_without_detection_the_encoder_ends_near_where_it_was() -> None:
    """Near alone: weight decay takes it off its teacher, and of the least gradient AdamW makes steps of full length."""
    moved = {}
    for eta in (0.0, 1.0):
        model = model_of(eta=eta)
        logged = train(model, 14)
        with torch.no_grad():
            maps = [model.features(each, noise()) for each in (model.encoder, model.teacher)]
        pairs = zip(*maps, strict=True)
        moved[eta] = max(float((one - two).square().mean() / two.square().mean()) for one, two in pairs)
        # the control says what it sees all the same
        assert all(each["loss_spd"] > 0 for each in logged)
    assert moved[0.0] < 0.2 * moved[1.0]


def test_the_loss_is_its_terms() -> None:
    (loss, logged), (control_loss, control) = step(model_of(eta=0.3)), step(model_of(eta=0.0))
    distillation = (logged["distillation_blocks.1"] + logged["distillation_blocks.2"]) / 2
    assert loss.item() == pytest.approx(distillation + 0.3 * logged["loss_spd"], rel=1e-5)
    assert control_loss.item() == pytest.approx(distillation, abs=1e-9)
    assert {**logged, "loss": 0} == {**control, "loss": 0}
    assert distillation < 1e-9  # of a student that is its teacher
    assert logged["mean_square_blocks.1"] == pytest.approx(1, rel=1e-4)
    assert 0 < logged["ranking_accuracy"] < 1


def test_an_encoder_that_left_its_teacher_is_pulled_back() -> None:
    model = model_of(eta=0.0, learning_rate=3e-3)
    with torch.no_grad():
        for each in model.encoder.blocks[1].parameters():
            each.mul_(1.1)
    logged = train(model, 10)
    assert logged[0]["distillation_blocks.1"] > 1e-3
    assert logged[-1]["distillation_blocks.1"] < 0.5 * logged[0]["distillation_blocks.1"]


def test_its_gradient_ranks_perturbations_above_false_alarms() -> None:
    logged = train(model_of(learning_rate=3e-3), 12)
    assert logged[-1]["loss_spd"] < 0.8 * logged[0]["loss_spd"]
    assert logged[-1]["ranking_accuracy"] > logged[0]["ranking_accuracy"] + 0.05


class Recording:
    """Stands for a function, and keeps what it was given."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *args: Any) -> Any:
        self.calls.append(args)
        return self.function(*args)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Recording:
    recording = Recording(losses.memory_distance)
    monkeypatch.setattr(losses, "memory_distance", recording)
    return recording


@pytest.mark.parametrize("batch", [2, 3, 5, 8])
@pytest.mark.parametrize("memory", [50, 100_000])
def test_the_memory_is_of_other_images_than_the_changed_ones(batch: int, memory: int, compared: Recording) -> None:
    model = model_of(memory=memory)
    loss, _ = step(model, batch)
    assert loss.isfinite()
    ((query, memorized, size),) = compared.calls
    assert tuple(size) == (SIDE, SIDE)
    number = batch // 2
    with torch.no_grad():
        of_all = patch_embedding(model.features(model.encoder, noise(batch)))
    unit = sum(each.square().sum(1).mean() for each in model.features(model.teacher, noise(batch)[:number])).sqrt()
    of_memory, of_queries = (
        (each / unit).movedim(1, -1).flatten(0, 2) for each in of_all.split([number, batch - number])
    )
    assert query.shape == (batch - number, of_all.shape[1], SIDE // 4, SIDE // 4)
    assert len(memorized) == min(memory, number * LOCATIONS)
    nearest, which = torch.cdist(memorized, of_memory, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert nearest.max() < 1e-4
    assert len(which.unique()) == len(memorized)  # none is taken twice
    assert {int(each) for each in which // LOCATIONS} == set(range(number))  # and none is passed over
    assert torch.cdist(memorized, of_queries, compute_mode="donot_use_mm_for_euclid_dist").min() > 1e-3
    # both learn
    assert query.requires_grad
    assert memorized.requires_grad


def test_what_is_marked_as_changed_is_what_was_changed_visibly(monkeypatch: pytest.MonkeyPatch) -> None:
    model, detection = model_of(local_augmentations=[Box()], num_perturbations=1), Recording(losses.detection_loss)
    monkeypatch.setattr(losses, "detection_loss", detection)
    step(model)
    ((distance, mask, temperature),) = detection.calls
    assert distance.shape == (2, SIDE, SIDE)
    assert temperature == 0.2
    expected = torch.zeros(2, 1, SIDE, SIDE)
    expected[:, :, 10:20, 30:50] = 1
    assert torch.equal(mask, expected)


def test_one_image_is_nobodys_memory() -> None:
    with pytest.raises(ValueError, match=r"Got batches of 1: give more images or a larger --batch_size, or patch"):
        step(model_of(), 1)


def test_images_that_are_not_perturbed_teach_nothing_of_detection() -> None:
    model = model_of(local_augmentations=[torch.nn.Identity()])
    loss, logged = step(model)
    assert logged["loss_spd"] == 0
    loss.backward()
    assert all(each.grad.isfinite().all() for each in model.parameters() if each.requires_grad)


def test_a_loss_that_is_no_number_is_refused() -> None:
    model = model_of()
    model.encoder.blocks[2].register_forward_hook(lambda module, inputs, output: output * float("nan"))
    with pytest.raises(FloatingPointError, match=r"The loss is nan \(distillation: nan, SPD: "):
        step(model)


class Brighten(torch.nn.Module):
    """A transform that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images + 0.01


def test_so_many_perturbations_are_made_each_by_a_transform_that_is_drawn() -> None:
    transforms = [Brighten() for _ in range(4)]
    model = model_of(local_augmentations=transforms, num_perturbations=3)
    images = noise()
    before = images.clone()
    for _ in range(30):
        first, second = model.views(images)
        torch.testing.assert_close(second, first + 0.03)
        assert torch.equal(first, before)
    assert sum(each.calls for each in transforms) == 90
    assert all(each.calls for each in transforms)


SWAPS = [RandomCutSwap((0.0005, 0.01)), RandomCutSwap((0.01, 0.05)), RandomCutSwapScar()]
PASTES = [RandomCutPaste((0.0005, 0.01)), RandomSmoothBlend((0.0005, 0.02), sigma=2.0)]


@pytest.mark.parametrize("transforms", [None, PASTES[:1], PASTES[1:]])
def test_perturbations_are_local_and_stay_in_range(transforms: Any) -> None:
    model = model_of(local_augmentations=transforms, num_perturbations=1)
    shares = []
    for _ in range(8):
        first, second = model.views(noise())
        assert second.min() >= 0
        assert second.max() <= 1
        shares += (first != second).any(1).float().mean((1, 2)).tolist()
    assert max(shares) < 0.35
    assert sum(share > 0 for share in shares) > 0.9 * len(shares)


def seeing(**settings: Any) -> tuple[Any, list[Tensor]]:
    """A model that takes the spots for salient; and what it looked at."""
    model = model_of(**settings)
    swaps = [each for each in model.perturbation.transforms if isinstance(each, RandomCutSwap | RandomCutSwapScar)]
    return model, take_for_salient(model, swaps, SPOTS)


def test_patches_are_swapped_where_the_level_that_was_drawn_is_salient() -> None:
    model, seen = seeing(local_augmentations=SWAPS, num_perturbations=2)
    drawn = torch.zeros(8, len(SPOTS), dtype=torch.bool)
    for _ in range(12):
        first, second = model.views(noise(8))
        where = (first != second).any(1)
        assert where.flatten(1).any(1).all()
        fits = torch.stack([~(where & ~near(SPOTS[level], REACH)).flatten(1).any(1) for level in range(len(SPOTS))], 1)
        assert fits.any(1).all()  # all changes of an image are of one level
        drawn |= fits & (fits.sum(1, keepdim=True) == 1)
    assert drawn.all()
    # once a batch, whatever the number of changes, and before any change
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    assert [len(each) for each in seen] == [1] * 8 * 12
    torch.testing.assert_close(torch.cat(seen[:8]), (noise(8) - mean) / std)


def test_without_a_map_patches_lie_anywhere() -> None:
    first, second = model_of(num_perturbations=1).views(noise(64))
    where = (first != second).any(1)
    assert all((where & ~near(SPOTS[level], REACH)).any() for level in range(len(SPOTS)))
    # each part of the image is reached
    assert where.view(64, 4, 16, 4, 16).any(4).any(2).any(0).all()


def test_beside_swaps_other_changes_are_not_guided() -> None:
    model, seen = seeing(local_augmentations=[RandomCutSwap((0.0005, 0.01)), *PASTES], num_perturbations=1)
    outside = 0
    for _ in range(12):
        first, second = model.views(noise(4))
        where = (first != second).any(1)
        outside += int((where & ~(near(SPOTS[0], REACH) | near(SPOTS[1], REACH))).any())
    assert outside > 0
    assert len(seen) == 4 * 12


@pytest.mark.parametrize(
    "settings",
    [{"classifier": None}, {"classifier": "there is none of that name", "local_augmentations": PASTES}],
)
def test_no_classifier_is_loaded_where_none_guides(settings: dict[str, Any], home: Path) -> None:
    model = model_of(**settings)
    assert model.saliency is None
    model.views(noise())
    assert not (home / ".saliency").exists()


@pytest.mark.parametrize("settings", [{}, {"local_augmentations": [*PASTES, RandomCutSwapScar(top=300)]}])
def test_elsewhere_one_is(settings: dict[str, Any], home: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="there is none of that name"):
        model_of(classifier="there is none of that name", **settings)
    model = model_of(classifier="small_b", saliency_cache=tmp_path / "maps", **settings)
    model.views(noise())
    assert len(list((tmp_path / "maps").rglob("*.safetensors"))) == 4
    assert not (home / ".saliency").exists()
    # neither trained nor saved, and the folder of maps is no setting of the run
    assert {name.partition(".")[0] for name in model.state_dict()} == {"encoder", "teacher"}
    assert "saliency_cache" not in model.hparams


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"local_augmentations": []}, r"`local_augmentations` are one transform or more.* Got \[\] and 3"),
        ({"local_augmentations": ["RandomErasing(p=1.0)"]}, "are one transform or more, objects or in YAML class_path"),
        ({"num_perturbations": 0}, "`num_perturbations` is at least 1.* and 0"),
        ({"memory": 0}, "`memory` is at least 1. Got 0"),
        ({"eta": -0.1}, "not negative. Got -0.1"),
        ({"layers": ("blocks.1", "blocks.9")}, r"no layer 'blocks\.9'"),
        ({"layers": ("blocks.2", "blocks.1")}, "from first to last"),
        ({"frozen": ("blocks.9",)}, r"no part 'blocks\.9'"),
    ],
)
def test_arguments_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_of(**settings)


def test_a_layer_that_the_classifier_does_not_have_is_refused(home: Path) -> None:
    with pytest.raises(ValueError, match=r"no layer 'blocks\.9'"):
        model_of(classifier="small_b", saliency_layers=["blocks.9"])
