"""Fits the tensors of a checkpoint to a timm architecture. Nothing of the file's size claims is allocated before it fits."""

import copy
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from anomalib_spd.backbones.naming import Naming, is_dense, rename
from anomalib_spd.files import first_few

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# of the image in the trial, pixels
_LARGEST = 1024


class Fitted(NamedTuple):
    """A network with a checkpoint's tensors.

    Args:
        model: in the precision that the tensors are stored in.
        notes: what was changed in them, in words.
    """

    model: nn.Module
    notes: list[str]


def fit(tensors: Mapping[str, Tensor], architecture: str, *, prefix: str | None = None, **model_args: Any) -> Fitted:
    """Build an architecture with a checkpoint's tensors, in the precision that they are stored in.

    Names are matched by :func:`~anomalib_spd.backbones.naming.rename`, or else by timm's own conversion of the original
    authors' checkpoints. A classifier keeps its own number of classes; a projection in its place is dropped, and the
    network then ends with its pooled features. A first convolution of one channel is repeated to three.

    Args:
        tensors: by the checkpoint's own names.
        architecture: timm's name.
        prefix: what stands before the names; by default it is found.
        model_args: of timm's entry point.

    Raises:
        ValueError: where tensors are missing, unexpected, of another shape or type, or not finite, or the network's output
            is not finite.
    """
    model = _create_empty(architecture, model_args | {"num_classes": 0})
    naming = rename(tensors, model, prefix)
    given = _without_projection(naming, model)
    heads = classifier_names(model)
    classifier = given.get(f"{heads[0]}.weight") if heads else None
    classes = len(classifier) if classifier is not None and classifier.ndim else 0
    if classes:
        model = _create_empty(architecture, model_args | {"num_classes": classes})
    expected = model.state_dict()
    notes = _repeat_one_channel(given, model)
    if _problems(given, expected) and (converted := _convert(given, model)):
        given = converted
    found = sum(name in given for name in expected)
    for name in expected:
        # files from before PyTorch 0.4.1 do not count batches; only training reads the number
        if name.endswith("num_batches_tracked"):
            given.setdefault(name, torch.tensor(0))
    if problems := _problems(given, expected):
        behind = f", behind the prefix {naming.prefix!r}" if naming.prefix else ""
        other = "" if 2 * found > len(expected) else ", or what stands before its names (--prefix), or its part (--key)"
        raise ValueError(
            f"The checkpoint does not fit {architecture}: {'; '.join(problems)}. {found} of the {len(expected)} expected "
            f"tensors were found{behind}. Give the architecture that it was trained with{other}."
        )
    _check_values(given)
    # own, contiguous memory: saved tensors may be views of one another, or in another memory format
    state = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in given.items()}
    model = _create(architecture, model_args | {"num_classes": classes})
    model.load_state_dict(state, assign=True)
    return Fitted(model, notes)


@torch.no_grad()
def check_output(model: nn.Module) -> None:
    """Run a network on one image of noise.

    Raises:
        ValueError: where its output is not finite, or it cannot run.
    """
    trial = copy.deepcopy(model).float().eval()
    pretrained_cfg: Any = model.pretrained_cfg
    height, width = (min(length, _LARGEST) for length in pretrained_cfg["input_size"][-2:])
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    try:
        output = trial(image)
    except Exception as error:  # the record of a foreign folder may say any size of image
        msg = f"The network cannot run on an image of {height} x {width} px: {type(error).__name__}: {error}"
        raise ValueError(msg) from error
    if not torch.isfinite(output).all():
        raise ValueError(
            "The weights give NaN or infinite output on an image, though they are finite themselves: their training diverged, "
            "or they do not belong to this architecture. Give another checkpoint."
        )


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Return timm's names of a model's classifier layers, the main one first."""
    pretrained_cfg: Any = model.pretrained_cfg
    return _as_tuple(pretrained_cfg.get("classifier"))


def _as_tuple(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _create(architecture: str, model_args: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(architecture, **model_args)
    except Exception as error:  # the arguments may come from a file, and timm does not check them
        msg = f"timm cannot build {architecture} with {model_args}: {type(error).__name__}: {error}"
        raise ValueError(msg) from error


def _create_empty(architecture: str, model_args: dict[str, Any]) -> nn.Module:
    """Build a network without memory for its tensors: how large they are is what a file says."""
    try:
        with torch.device("meta"):
            return _create(architecture, model_args)
    except ValueError:  # older releases of timm compute with numbers of tensors while they build some networks
        return _create(architecture, model_args)


def _without_projection(naming: Naming, model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors without what stands in the classifier's place and is none."""
    heads = classifier_names(model)
    # the encoders of self-supervised methods have no classifier; a projection of several layers is none either
    if "encoder" not in naming.prefix and heads and f"{heads[0]}.weight" in naming.tensors:
        return dict(naming.tensors)
    projections = tuple(f"{name}." for name in heads)
    return {name: tensor for name, tensor in naming.tensors.items() if not name.startswith(projections)}


def _repeat_one_channel(given: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Repeat the kernel of a network of gray images to three channels, a third each: gray images give what they gave."""
    pretrained_cfg: Any = model.pretrained_cfg
    expected = model.state_dict()
    notes = []
    for name in (f"{conv}.weight" for conv in _as_tuple(pretrained_cfg.get("first_conv"))):
        kernel, wanted = given.get(name), expected.get(name)
        if kernel is None or wanted is None or kernel.ndim != 4:
            continue
        if (
            kernel.dtype in FLOATS
            and is_dense(kernel)
            and kernel.shape[1] == 1
            and wanted.shape[1] == 3
            and kernel[:, 0].shape == wanted[:, 0].shape
        ):
            given[name] = (kernel / 3).repeat(1, 3, 1, 1)
            notes.append("first convolution of one channel repeated to three, a third each")
    return notes


def _convert(given: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor] | None:
    """Return the tensors as timm itself converts the original authors' checkpoints, such as DINOv2's; None where it does not.

    timm also resamples what belongs to images of another size; those are other networks, and left alone.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None or not all(map(is_dense, given.values())):
        return None
    try:
        converted = dict(convert(dict(given), model))
    except Exception:  # the names are a file's own
        return None
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    # with register tokens, timm's DINOv2 adds the position of the class token to the token
    size = {
        name: tensor.numel() for name, tensor in given.items() if not (name == "pos_embed" and "reg_token" in shapes)
    }
    is_resampled = any(size.get(name, tensor.numel()) != tensor.numel() for name, tensor in converted.items())
    return None if is_resampled or _problems(converted, model.state_dict()) else converted


def _problems(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return how the given tensors differ from the expected ones, in words."""
    problems = []
    counted = [name for name in expected if not name.endswith("num_batches_tracked")]
    if missing := [name for name in counted if name not in given]:
        problems.append(f"{len(missing)} missing ({first_few(missing)})")
    if unexpected := [name for name in given if name not in expected]:
        problems.append(f"{len(unexpected)} unexpected ({first_few(unexpected)})")
    common = [(name, given[name], tensor) for name, tensor in expected.items() if name in given]
    if shapes := [f"{name} is {tuple(g.shape)}, not {tuple(e.shape)}" for name, g, e in common if g.shape != e.shape]:
        problems.append(f"{len(shapes)} of another shape ({first_few(shapes)})")
    types = [(name, g.dtype, e.dtype) for name, g, e in common if not _is_taken(g.dtype, e.dtype)]
    if wrong := [f"{name} is {found}, not {wanted}" for name, found, wanted in types]:
        floats = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
        problems.append(f"{len(wrong)} of another type ({first_few(wrong)}; {floats} are read)")
    if loose := [name for name, tensor, _ in common if not is_dense(tensor)]:
        problems.append(
            f"{len(loose)} without a stored value for each element ({first_few(loose)}): sparse, quantized, expanded or on the "
            "meta device; save dense tensors, by tensor.to_dense() or tensor.contiguous()"
        )
    return problems


def _is_taken(found: torch.dtype, wanted: torch.dtype) -> bool:
    return found in FLOATS if wanted.is_floating_point else not (found.is_floating_point or found.is_complex)


def _check_values(given: Mapping[str, Tensor]) -> None:
    """Check that tensors are stored, not many views of one memory, and finite."""
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in given.values()}
    # weights that belong to two layers are stored once
    if sum(tensor.numel() * tensor.element_size() for tensor in given.values()) > 2 * sum(stored.values()):
        raise ValueError("The checkpoint's tensors are views of one memory. Save each one by itself: tensor.clone().")
    if infinite := [name for name, tensor in given.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(
            f"The checkpoint holds NaN or infinite values in {len(infinite)} of {len(given)} tensors "
            f"({first_few(infinite)}): its training diverged. Give an earlier checkpoint."
        )
