"""LayerCAM: maps of the pixels that support a class, from several depths of a network at once."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VGG16_POOLS = ("features.4", "features.9", "features.16", "features.23", "features.30")
"""The five pooling layers of torchvision's VGG16, strides 2, 4, 8, 16, 32. The CutSwap paper gives the
numbers 4, 9, 16, 23 and 30 without the network; that it is VGG16 is inferred from them."""

EFFICIENTNET_LITE0_STRIDES = ("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6")
"""The last stage of each stride, 2, 4, 8, 16, 32, of timm's EfficientNet-Lite0: its equivalent of ``VGG16_POOLS``."""

# torchcam's, so that the maps are equal
_EPS = 1e-8


@dataclass(frozen=True)
class TopK:
    """The target that sums each image's k largest logits.

    Args:
        k: from 1, which is ``"argmax"``, to the number of classes.
    """

    k: int


Target = Literal["argmax"] | int | Tensor | TopK
"""The explained logit: each image's largest, one class for all images, one class for each image (int64 ``(B,)``), or the
sum of each image's largest logits."""


class LayerCAM:
    r"""Class activation maps of several layers from one forward and one backward pass.

    With a layer's activations :math:`A_k` and the gradients :math:`G_k` of the class's logit with respect to them, the
    map is :math:`\mathrm{relu}(\sum_k A_k \, \mathrm{relu}(G_k))`, scaled up to the image's size (bilinear) and to
    ``[0, 1]``. The outer relu matters where activations are negative, as behind EfficientNet's linear bottlenecks.

    Source: Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization (TIP 2021), section III.
    Scaling is ours: from minimum to maximum of the enlarged map; the paper's tanh for shallow layers is left out.

    On textures, shallow maps are brightest along the image's border, where the network sees its zero padding.

    A map is that of the layer's own output, also where the network then works on it in place (torchcam's is that of the
    result). During a call the model is in eval mode and its parameters need no gradient; afterwards its state is restored,
    also if the model raises. So two threads must not use one model at a time.

    The tokens of one of timm's vision transformers are taken as the map of its patches, without class and register tokens.

    Args:
        model: classifier that returns logits ``(B, classes)``.
        layers: names of ``model.named_modules()`` whose output is floating ``(B, K, u, v)``, or ``(B, N, K)`` in a vision
            transformer, each run once by a forward.

    Attributes:
        model: as given.
        layers: as given, the order of the maps.

    Raises:
        ValueError: for no layer, a repeated one, or one that the model does not have; for a model of timm's whose maps are
            channels last.

    Examples:
        >>> import timm, anomalib_spd
        >>> classifier = timm.create_model("efficientnet_lite0_in1k", pretrained=True)
        >>> cam = LayerCAM(classifier, EFFICIENTNET_LITE0_STRIDES)
        >>> cam(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 5, 64, 64])
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        known = dict(model.named_modules())
        for name in layers:
            if name not in known:
                near = ", ".join(difflib.get_close_matches(name, known, n=5)) or "none"
                raise ValueError(
                    f"{type(model).__name__} has no layer {name!r}. Near it: {near}. "
                    "`dict(model.named_modules())` lists all."
                )
        if not layers or len(set(layers)) < len(layers):
            raise ValueError(f"`layers` is one name at least, and none twice. Got {list(layers)}.")
        if getattr(model, "output_fmt", None) == "NHWC":  # as timm marks Swin, MambaOut and Sequencer
            raise ValueError(
                f"{type(model).__name__} gives maps of the form (B, H, W, C), and LayerCAM takes (B, C, H, W). Give a network "
                "with channels first, such as a ResNet."
            )
        self.model = model
        self.layers = tuple(layers)

    def __repr__(self) -> str:
        return f"LayerCAM({type(self.model).__name__}, {list(self.layers)})"

    def __call__(self, images: Tensor, target: Target = "argmax") -> Tensor:
        """Return the maps of a batch. Works under ``torch.no_grad()`` and ``torch.inference_mode()``, too.

        Args:
            images: ``(B, C, H, W)``, floating, on the model's device and normalized as the model expects.
            target: the explained logit, see ``Target``.

        Returns:
            float32 ``(B, L, H, W)`` in ``[0, 1]``, L as in ``layers``. A map without contrast, as of a layer without
            positive gradient, is all zero. An image that is not finite has maps of NaN, without effect on the others.

        Raises:
            ValueError: for images of another shape or dtype; a target that the model does not have; a layer that the
                forward does not reach, reaches twice, on which the logits do not depend, or whose output is no
                map, as said there; a model that does not return ``(B, classes)``.
        """
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(
                f"LayerCAM takes floating images (B, C, H, W), normalized for the model. Got {images.dtype} "
                f"{tuple(images.shape)}; scale bytes to [0, 1] and normalize them first."
            )
        model = type(self.model).__name__
        # enable_grad does not undo inference mode, in which Lightning tests and predicts
        with torch.inference_mode(False), torch.enable_grad(), _frozen(self.model), self._capture() as captured:
            logits = self.model(images.detach())
            missing = [name for name in self.layers if name not in captured]
            if missing:
                raise ValueError(f"The forward of {model} did not reach {missing}. Give layers that it runs.")
            activations = [captured[name] for name in self.layers]
            score = _score(logits, target, len(images))
            gradients: Sequence[Tensor | None] = [None] * len(activations)
            if score.requires_grad:
                gradients = torch.autograd.grad(score, activations, allow_unused=True)
        maps = []
        for name, activation, gradient in zip(self.layers, activations, gradients, strict=True):
            if gradient is None:
                raise ValueError(f"The logits of {model} do not depend on layer {name!r}. Give one before them.")
            precise = torch.promote_types(activation.dtype, torch.float32)
            weighted = activation.detach().to(precise) * gradient.to(precise).relu()
            raw = self._as_map(weighted, images).sum(dim=1, keepdim=True).relu()
            maps.append(F.interpolate(raw, tuple(images.shape[-2:]), mode="bilinear", align_corners=False))
        stacked = torch.cat(maps, dim=1)
        stacked = stacked - stacked.amin(dim=(-2, -1), keepdim=True)
        return (stacked / (stacked.amax(dim=(-2, -1), keepdim=True) + _EPS)).float()

    def _as_map(self, weighted: Tensor, images: Tensor) -> Tensor:
        """Return what is a map ``(B, K, u, v)``, and tokens ``(B, N, K)`` as one."""
        if weighted.ndim == 4:
            return weighted
        model: Any = self.model
        height, width = model.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))
        tokens: Tensor = weighted.narrow(1, model.num_prefix_tokens, height * width)
        return tokens.reshape(len(tokens), height, width, -1).movedim(-1, 1)

    @contextmanager
    def _capture(self) -> Iterator[dict[str, Tensor]]:
        """Collect the layers' outputs during a forward, as the leaves of its graph."""
        captured: dict[str, Tensor] = {}

        def capture(name: str, _module: nn.Module, _inputs: Any, output: Any) -> Tensor:
            dimensions = (3, 4) if hasattr(self.model, "num_prefix_tokens") else (4,)
            if not isinstance(output, Tensor) or output.ndim not in dimensions or not output.is_floating_point():
                got = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(
                    f"Layer {name!r} returned {got}, expected floating (B, K, u, v). Give a convolutional layer."
                )
            if name in captured:
                raise ValueError(
                    f"A forward runs layer {name!r} twice, so it has no single map. Give a layer that runs once."
                )
            # Two copies, as the network may work in place: on this tensor under another name (a skip connection), and
            # on the returned one, which autograd forbids for a leaf.
            captured[name] = output.clone().requires_grad_()
            return captured[name].clone()

        with ExitStack() as hooks:
            for name in self.layers:
                hooks.enter_context(self.model.get_submodule(name).register_forward_hook(partial(capture, name)))
            yield captured


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Set eval mode and keep parameters out of the graph, which then starts at the shallowest layer; restore both."""
    modes = [(module, module.training) for module in model.modules()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        # not by .train(): modules may be in different modes
        for module, mode in modes:
            module.training = mode


def _score(logits: Any, target: Target, batch_size: int) -> Tensor:
    """Return the sum of the explained logits; its gradient is each image's own, as images do not interact."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != batch_size:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"The model returned {got}, expected logits ({batch_size}, classes). Wrap it in one that returns them."
        )
    classes = logits.shape[1]
    if isinstance(target, TopK):
        if not 1 <= target.k <= classes:
            raise ValueError(f"`TopK` takes 1 to {classes} logits, the classes of the model. Got {target.k}.")
        return logits.topk(target.k, dim=1).values.sum()
    if isinstance(target, str):
        if target != "argmax":
            raise ValueError(f"`target` is 'argmax', a class, a class for each image or TopK(k). Got {target!r}.")
        # not amax, which divides the gradient among equal logits
        return logits.max(dim=1).values.sum()
    chosen = torch.as_tensor(target, device=logits.device)
    if chosen.dtype != torch.int64 or chosen.shape not in {(), (batch_size,)}:
        raise ValueError(
            f"`target` is 'argmax', a class, int64 ({batch_size},) with a class for each image, or TopK(k). "
            f"Got {chosen.dtype} {tuple(chosen.shape)}."
        )
    if ((chosen < 0) | (chosen >= classes)).any():
        raise ValueError(f"`target` is a class from 0 to {classes - 1}. Got {chosen.tolist()}.")
    return logits.gather(1, chosen.expand(batch_size)[:, None]).sum()
