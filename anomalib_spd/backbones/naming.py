"""The names that training codes give to the tensors of an architecture, and what stands before them.

Each code is one naming: a mapping from its names to timm's. What stands before the names is found by matching, whatever it is.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from anomalib_spd.files import first_few

# of two networks that fit, the one that is meant: what MoCo, SimSiam and this package train, beside keys and teachers
TRAINED = re.compile(r"(^|\.)((base_)?encoder|encoder_q)\.((_orig_mod|module)\.)*$")
# the slow copy of a network that is trained beside it
MOMENTUM = re.compile("encoder_k|momentum")

# timm's names -> those of transformers; layers are counted from 0 there
_TRANSFORMERS_RESNET = (
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    (r"^layer(\d)\.(\d+)\.downsample\.0\.", r"encoder.stages.\1.layers.\2.shortcut.convolution."),
    (r"^layer(\d)\.(\d+)\.downsample\.1\.", r"encoder.stages.\1.layers.\2.shortcut.normalization."),
    (r"^layer(\d)\.(\d+)\.conv(\d)\.", r"encoder.stages.\1.layers.\2.layer.\3.convolution."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", r"encoder.stages.\1.layers.\2.layer.\3.normalization."),
)
_TRANSFORMERS_VIT = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layer.\1.attention.attention.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
)
_TRANSFORMERS_DINOV2 = (
    *_TRANSFORMERS_VIT[:6],
    (r"^blocks\.(\d+)\.ls(\d)\.gamma$", r"encoder.layer.\1.layer_scale\2.lambda1"),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
)
# of transformers' vision transformers, no part of what computes features
_TRANSFORMERS_EXTRA = ("pooler.", "embeddings.mask_token")


class Naming(NamedTuple):
    """The tensors of a checkpoint that belong to an architecture, by timm's names.

    Args:
        prefix: what stood before the names of the checkpoint.
        tensors: all tensors behind the prefix, by timm's names; by the checkpoint's own where timm has none.
        found: number of the architecture's tensors among them.
    """

    prefix: str
    tensors: dict[str, Tensor]
    found: int


def rename(tensors: Mapping[str, Tensor], model: nn.Module, prefix: str | None = None) -> Naming:
    """Find an architecture's tensors in a checkpoint by matching its names, whatever stands before them.

    Args:
        tensors: by the checkpoint's own names.
        model: the architecture without a classifier; it may be on the meta device.
        prefix: what stands before the names; by default that with the most of the architecture's tensors. Of several, the
            trained encoder is taken, not its slow copy (MoCo's key encoder) nor its teacher.

    Raises:
        ValueError: where two networks fit equally well, or nothing has the prefix.
    """
    if prefix and any(name.startswith(f"{prefix}.") for name in tensors):
        prefix = f"{prefix}."
    if prefix is not None and not any(name.startswith(prefix) for name in tensors):
        raise ValueError(f"No tensor's name begins with the prefix {prefix!r}. There are {first_few(tensors)}.")
    expected = list(model.state_dict())
    best = Naming(prefix or "", dict(tensors), -1)
    for names in _namings(model):
        fused = _fuse_attention(tensors) if any(".attention.qkv." in name for name in names) else tensors
        counts = _prefixes(fused, names) if prefix is None else {prefix: sum(prefix + name in fused for name in names)}
        most = max(counts.values(), default=0)
        if most <= best.found:
            continue
        found = [each for each, count in counts.items() if count == most] or [""]
        if len(found) > 1 and 2 * most >= len(expected):
            trained = [each for each in found if TRAINED.search(each)]
            found = trained or [each for each in found if not MOMENTUM.search(each)] or found
            if len(found) > 1:
                raise ValueError(
                    f"The checkpoint holds {len(found)} networks that fit: their names begin with "
                    f"{' and '.join(map(repr, sorted(found)))}. Give one of these as the prefix (--prefix)."
                )
        chosen = min(found, key=len)
        behind = {name.removeprefix(chosen): tensor for name, tensor in fused.items() if name.startswith(chosen)}
        if fused is not tensors:
            behind = {name: tensor for name, tensor in behind.items() if not name.startswith(_TRANSFORMERS_EXTRA)}
        best = Naming(chosen, {names.get(name, name): tensor for name, tensor in behind.items()}, most)
    return best


def _namings(model: nn.Module) -> list[dict[str, str]]:
    """Return mappings from names of a code to timm's, timm's own names (torchvision's, VISSL's, MoCo's ...) first."""
    expected = list(model.state_dict())
    namings = [{name: name for name in expected}]
    # lightly and others put the children into an nn.Sequential, which counts them
    order = {name: str(number) for number, (name, _) in enumerate(model.named_children())}
    numbered = {name: name.partition(".") for name in expected}
    namings.append({f"{order[first]}.{rest}": name for name, (first, _, rest) in numbered.items() if first in order})
    for rules in (_TRANSFORMERS_RESNET, _TRANSFORMERS_VIT, _TRANSFORMERS_DINOV2):
        namings.append({_apply(rules, name): name for name in expected})
    return namings


def _apply(rules: tuple[tuple[str, str], ...], name: str) -> str:
    for pattern, replacement in rules:
        if re.match(pattern, name):
            renamed = re.sub(pattern, replacement, name)
            if rules is not _TRANSFORMERS_RESNET:
                return renamed
            # stages and convolutions of timm's ResNets are counted from 1
            counted = re.compile(r"(?<=stages\.)\d+|(?<=\.layer\.)\d+")
            return counted.sub(lambda number: str(int(number[0]) - 1), renamed)
    return name


def _prefixes(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, int]:
    """Count by prefix how many of the names stand behind it."""
    counts: Counter[str] = Counter()
    depth = max((name.count(".") for name in names), default=0)
    for key in tensors:
        parts = key.rsplit(".", depth + 1)
        for start in range(len(parts)):
            if (name := ".".join(parts[start:])) in names:
                counts[key.removesuffix(name)] += 1
    return counts


def _fuse_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the projections to queries, keys and values, which timm has in one tensor."""
    fused = dict(tensors)
    for name in tensors:
        base, query, end = name.rpartition("query")
        parts = [f"{base}{part}{end}" for part in ("query", "key", "value")]
        if query and all(part in tensors and is_dense(tensors[part]) for part in parts):
            rows = [fused.pop(part) for part in parts]
            if len({(tensor.shape, tensor.dtype) for tensor in rows}) == 1 and rows[0].ndim:
                fused[f"{base}qkv{end}"] = torch.cat(rows)
    return fused


def is_dense(tensor: Tensor) -> bool:
    """Return whether each element of a tensor is stored by itself, in memory."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
