"""LayerCAM against torchcam's and a closed form, and its promises about the model that it borrows."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from skimage import data
from torch import Tensor, nn

import anomalib_spd  # noqa: F401  (its classifiers by name)
from anomalib_spd.saliency import EFFICIENTNET_LITE0_STRIDES, VGG16_POOLS, LayerCAM, TopK
from tests.saliency.classifiers import CLASSES, count_hooks, small_classifier, some_images


def _vgg16() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.vgg16(weights=None, num_classes=CLASSES)


def _resnet18() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None, num_classes=CLASSES)


def _lite0() -> nn.Module:
    return timm.create_model("efficientnet_lite0_in1k", pretrained=True)


def _photographs() -> Tensor:
    """The same three at each call, (3, 3, 128, 128), normalised."""
    pictures = [torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 for picture in (data.astronaut(), data.cat())]
    pictures.append(pictures[0].flip(-1))
    small = torch.cat([F.interpolate(picture, (128, 128), mode="area") for picture in pictures])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (small - mean[:, None, None]) / std[:, None, None]


def _torchcam(model: nn.Module, layers: tuple[str, ...], images: Tensor, classes: list[int], normalized: bool) -> Any:
    methods = pytest.importorskip("torchcam.methods", reason="the oracle, in the extra [test]")
    with methods.LayerCAM(model.eval(), list(layers)) as extractor:
        return extractor(classes, model(images), normalized=normalized)


@pytest.mark.parametrize(
    ("build", "layers", "images"),
    [
        (_vgg16, VGG16_POOLS, some_images),
        (_resnet18, ("relu", "layer1", "layer2.0", "layer4"), some_images),
        (_lite0, EFFICIENTNET_LITE0_STRIDES, _photographs),
    ],
)
@pytest.mark.parametrize("target", ["argmax", "one", "each"])
def test_equals_torchcam(
    build: Callable[[], nn.Module], layers: tuple[str, ...], images: Callable[[], Tensor], target: str
) -> None:
    model, batch = build().eval(), images()
    chosen = {"argmax": model(batch).argmax(1), "one": torch.tensor([7] * 3), "each": torch.tensor([5, 0, 9])}[target]
    given: Any = {"argmax": "argmax", "one": 7, "each": chosen}[target]
    maps = LayerCAM(model, layers)(batch, given)
    raw = _torchcam(model, layers, batch, chosen.tolist(), normalized=False)
    assert maps.shape == (3, len(layers), *batch.shape[-2:])
    for level, theirs in enumerate(raw):
        enlarged = F.interpolate(theirs[:, None], batch.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        enlarged = enlarged - enlarged.amin((1, 2), keepdim=True)
        expected = enlarged / (enlarged.amax((1, 2), keepdim=True) + 1e-8)
        assert expected.amax((1, 2)).min() > 0.5  # none is empty
        torch.testing.assert_close(maps[:, level], expected, atol=1e-5, rtol=0)


def test_equals_torchcam_to_the_end_where_nothing_is_enlarged() -> None:
    model, images = _vgg16().eval(), some_images(2)
    layers = ("features.1", "features.3")
    expected = torch.stack(_torchcam(model, layers, images, [4, 2], normalized=True), dim=1)
    torch.testing.assert_close(LayerCAM(model, layers)(images, torch.tensor([4, 2])), expected, atol=1e-5, rtol=0)


def test_equals_the_closed_form_behind_a_linear_head() -> None:
    # logits W mean(A): the gradient is W / (u v) everywhere
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    images = some_images(5, 12)
    classes = torch.tensor([0, 1, 2, 3, 0])
    weights = model[3].weight[classes].relu() / 144
    raw = (model[0](images) * weights[:, :, None, None]).sum(1).detach()
    assert (raw < 0).any()  # so that the outer relu counts
    raw = raw.relu()
    expected = (raw - raw.amin((1, 2), keepdim=True)) / (
        raw.amax((1, 2), keepdim=True) - raw.amin((1, 2), keepdim=True)
    )
    torch.testing.assert_close(LayerCAM(model, ["0"])(images, classes)[:, 0], expected, atol=1e-5, rtol=0)


def test_top_k_explains_the_sum_of_the_largest_logits() -> None:
    model, images = small_classifier().eval(), some_images(1)
    order = model(images)[0].argsort(descending=True)
    cam = LayerCAM(model, ["1", "3"])
    torch.testing.assert_close(cam(images, TopK(1)), cam(images), atol=0, rtol=0)
    assert (cam(images, TopK(3)) - cam(images)).abs().max() > 0.01

    summing = nn.Sequential(*model[:7], nn.Linear(32, 1))
    summing[7].load_state_dict(
        {
            "weight": model[7].weight[order[:3]].sum(0, keepdim=True),
            "bias": model[7].bias[order[:3]].sum(0, keepdim=True),
        }
    )
    torch.testing.assert_close(cam(images, TopK(3)), LayerCAM(summing, ["1", "3"])(images), atol=1e-5, rtol=0)


def test_among_equal_logits_one_is_chosen() -> None:
    model = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    model[3].load_state_dict({"weight": torch.eye(2)})
    images = torch.zeros(1, 2, 4, 4)
    images[0, 0, 0, 0] = images[0, 1, 3, 3] = 1  # each class has its own pixel
    torch.testing.assert_close(LayerCAM(model, ["0"])(images), images[:, :1])


def test_a_batch_is_its_images_one_by_one() -> None:
    # in double precision, as a relu next to 0 opens or closes with the last bit of a sum
    cam, images = LayerCAM(_resnet18().double(), ["layer1", "layer4"]), some_images(4).double()
    target = torch.tensor([3, 1, 4, 1])
    single = torch.cat([cam(images[index : index + 1], target[index : index + 1]) for index in range(4)])
    torch.testing.assert_close(cam(images, target), single, atol=1e-5, rtol=0)


def test_layers_are_captured_before_operations_in_place() -> None:
    layers, images = ["0", "1", "3"], some_images()
    in_place = LayerCAM(small_classifier(inplace=True), layers)(images)
    torch.testing.assert_close(in_place, LayerCAM(small_classifier(inplace=False), layers)(images), atol=0, rtol=0)
    assert (in_place[:, 1] > 0).any()


class _Skip(nn.Module):
    """The layer's output has another name, under which it is overwritten."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.same = nn.Identity()
        self.head = nn.Linear(8, CLASSES)
        self.inplace = inplace

    def forward(self, images: Tensor) -> Tensor:
        shortcut = self.conv(images)
        features = self.same(shortcut)
        shortcut = shortcut.mul_(-1) if self.inplace else shortcut * -1
        return self.head((features**2 + shortcut).mean((2, 3)))


def test_nor_is_a_layer_overwritten_under_another_name() -> None:
    images = some_images()
    expected = LayerCAM(_Skip(inplace=False), ["same"])(images, 1)
    torch.testing.assert_close(LayerCAM(_Skip(inplace=True), ["same"])(images, 1), expected, atol=0, rtol=0)


class _Watched(nn.Module):
    """Counts forwards and backwards, and notes what needs a gradient; can be told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small_classifier()
        self.forwards = self.backwards = 0
        self.fails = False
        self.seen: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += 1
        self.seen += [parameter.requires_grad for parameter in self.parameters()]
        before = self.body[1](self.body[0](images))
        self.seen.append(before.requires_grad)
        if self.fails:
            raise OSError("the lights went out")
        logits = self.body[2:](before)

        def count(_: Tensor) -> None:
            self.backwards += 1

        logits.register_hook(count)
        return logits


def test_all_layers_cost_one_forward_and_one_backward_without_weights() -> None:
    model = _Watched()
    maps = LayerCAM(model, ["body.2", "body.3", "body.5"])(some_images().requires_grad_())
    assert maps.shape[1] == 3
    assert (model.forwards, model.backwards) == (1, 1)
    # neither the weights nor what lies before the shallowest layer was in the graph
    assert len(model.seen) > 4
    assert not any(model.seen)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_found(fails: bool) -> None:
    model = _Watched()
    model.train()
    model.body[1].eval()
    model.body[0].weight.requires_grad_(False)
    model.body[3].weight.grad = torch.ones_like(model.body[3].weight)
    model.body[0].register_forward_hook(lambda *_: None)
    model.fails = fails

    def state() -> list[Any]:
        return [
            [module.training for module in model.modules()],
            [parameter.requires_grad for parameter in model.parameters()],
            [None if parameter.grad is None else parameter.grad.sum().item() for parameter in model.parameters()],
            [value.sum().item() for value in model.state_dict().values()],
            count_hooks(model),
        ]

    before = state()
    if fails:
        with pytest.raises(OSError, match="the lights"):
            LayerCAM(model, ["body.1", "body.3"])(some_images())
    else:
        LayerCAM(model, ["body.1", "body.3"])(some_images())
    assert state() == before
    assert before[-1] == 1


def test_batch_norm_does_not_see_the_batch() -> None:
    model = small_classifier().train()
    maps = LayerCAM(model, ["3"])(some_images())
    torch.testing.assert_close(maps, LayerCAM(model.eval(), ["3"])(some_images()), atol=0, rtol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode: Any) -> None:
    cam, images = LayerCAM(small_classifier(), ["0", "3"]), some_images()
    expected = cam(images)
    with mode():
        torch.testing.assert_close(cam(images * 1), expected, atol=0, rtol=0)
        assert not torch.is_grad_enabled()


def test_no_graph_is_left() -> None:
    images = some_images().requires_grad_()
    maps = LayerCAM(small_classifier(), ["0", "3"])(images)
    assert not maps.requires_grad
    assert images.grad is None


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.float64, 1e-6)])
def test_other_precisions(dtype: torch.dtype, tolerance: float) -> None:
    model, images, layers = small_classifier(), some_images(), ["0", "1", "3"]
    expected = LayerCAM(model, layers)(images, 2)
    maps = LayerCAM(model.to(dtype), layers)(images.to(dtype), 2)
    assert maps.dtype == torch.float32
    assert maps.min() >= 0
    assert maps.max() <= 1
    # on average, as a relu next to 0 opens or closes with the rounding
    assert (maps - expected).abs().mean() < tolerance
    assert expected.std() > 0.05


def test_maps_without_contrast_are_zero() -> None:
    model = small_classifier()
    with torch.no_grad():
        model[7].weight[0] = 0  # class 0 does not depend on the picture: no gradient anywhere
    maps = LayerCAM(model, ["0", "1", "3"])(some_images(), torch.tensor([0, 1, 1]))
    assert (maps[0] == 0).all()
    assert maps[1:].amax() > 0.9

    flat = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        for parameter in flat.parameters():
            parameter.fill_(1)
    assert (LayerCAM(flat, ["0"])(torch.ones(2, 3, 8, 8)) == 0).all()


def test_an_image_that_is_not_finite_spoils_its_own_maps_only() -> None:
    cam, images = LayerCAM(small_classifier(), ["0", "3"]), some_images()
    expected = cam(images)
    images[1, 0, 5, 5] = torch.nan
    maps = cam(images)
    assert maps[1].isnan().all()
    torch.testing.assert_close(maps[[0, 2]], expected[[0, 2]], atol=1e-6, rtol=0)


def test_an_empty_batch_has_no_maps() -> None:
    assert LayerCAM(small_classifier(), ["0", "3"])(some_images()[:0]).shape == (0, 2, 64, 64)


def test_maps_that_are_channels_last_are_refused() -> None:
    with pytest.raises(ValueError, match=r"MambaOut gives maps of the form \(B, H, W, C\)"):
        LayerCAM(timm.create_model("mambaout_femto"), ["stages.0"])


def test_tokens_of_a_transformer_are_maps_of_its_patches() -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model("test_vit", dynamic_img_size=True).eval()
    images = torch.randn(2, 3, 48, 64)
    maps = LayerCAM(model, ["blocks.1", "blocks.3"])(images)

    tokens: list[Tensor] = []
    hook = model.blocks[3].register_forward_hook(lambda *args: tokens.append(args[2]))
    score = model(images).max(1).values.sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(score, tokens)
    patches = (tokens[0] * gradient.relu())[:, 1:].sum(2).relu().view(2, 1, 3, 4)
    large = F.interpolate(patches, (48, 64), mode="bilinear", align_corners=False)[:, 0]
    large = large - large.amin((1, 2), keepdim=True)
    torch.testing.assert_close(maps[:, 1], large / (large.amax((1, 2), keepdim=True) + 1e-8))
