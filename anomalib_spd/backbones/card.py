"""The model card of a backbone, in the form of the Hugging Face hub: metadata from the record, then text for people."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm

from anomalib_spd.backbones.record import CATALOG_FOLDER, NAME_PATTERN, WEIGHTS_FILE, Backbone
from anomalib_spd.backbones.registry import is_stock
from anomalib_spd.files import one_line

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

# what follows the metadata, filled by `str.format`
_TEMPLATE = Path(__file__).with_name("card.md")
_TAGS = ("timm", "anomalib", "anomaly-detection", "image-feature-extraction")
#: where the project's own backbones are, for those that were trained from one of them
_NAMESPACE = "anomalib-spd"
#: identifiers that the hub knows, of those that weights and images come with; it takes any other as the name of an "other"
_HUB_LICENSE = re.compile(
    r"apache-2\.0|mit|isc|zlib|unlicense|bsd(-[23]-clause)?|mpl-2\.0|epl-2\.0|gpl-[23]\.0|agpl-3\.0|lgpl-(2\.1|3\.0)|openrail"
    r"|cc0-1\.0|cc-by-2\.[05]|cc-by(-sa)?-[34]\.0|cc-by-nc(-sa)?-[234]\.0|cc-by-nc-nd-[34]\.0|cc-by-nd-4\.0|odc-by|odbl|unknown|other"
)


def card_text(backbone: Backbone, name: str, description: str) -> str:
    """Return a whole model card.

    Args:
        backbone: its record.
        name: of the backbone; that of the folder may be another while it is written.
        description: first paragraphs, in Markdown; empty for a line that names the architecture.
    """
    from huggingface_hub import ModelCard

    return str(ModelCard(f"---\n{card_data(backbone, name)}\n---\n{_body(backbone, name, description)}"))


def card_data(backbone: Backbone, name: str) -> "ModelCardData":
    """Return the metadata of a card, by which the hub files a model.

    Args:
        backbone: its record.
        name: of the backbone.
    """
    # not before it is needed: who names a backbone writes no card
    from huggingface_hub import EvalResult, ModelCardData

    license_id = backbone.license.lower()
    is_known = _HUB_LICENSE.fullmatch(license_id)
    figures = [EvalResult(**_plain(figure)) for figure in backbone.provenance.figures]
    return ModelCardData(
        license=license_id if is_known else "other",
        license_name=None if is_known else re.sub(r"[^a-z0-9.]+", "-", license_id).strip("-"),
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        base_model=_base_model(backbone),
        tags=[*_TAGS],
        metrics=[*dict.fromkeys(figure.metric_type for figure in figures)] or None,
        model_name=name if figures else None,
        eval_results=figures or None,
    )


def _plain(figure: Mapping[str, Any]) -> dict[str, Any]:
    return {key: one_line(value) if isinstance(value, str) else value for key, value in figure.items()}


def _base_model(backbone: Backbone) -> str | None:
    """Return the hub's name of the weights that a training started from; None where none is on record."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    settings: Any = backbone.provenance.settings
    base = settings.get("backbone")
    if not isinstance(base, str) or not settings.get("pretrained", True):
        return None
    if NAME_PATTERN.fullmatch(base) and (CATALOG_FOLDER / base).is_dir():
        base = f"{_NAMESPACE}/{base}"
    elif base.startswith("hf-hub:"):
        base = base.removeprefix("hf-hub:").partition("@")[0]
    elif is_stock(base) and (cfg := timm.get_pretrained_cfg(base)) and cfg.hf_hub_id:
        base = cfg.hf_hub_id
    else:
        return None  # the user's own: the hub does not know it, and the recipe names it
    try:
        validate_repo_id(base)
    except HFValidationError:
        return None
    return base


def _body(backbone: Backbone, name: str, description: str) -> str:
    provenance = backbone.provenance
    return _TEMPLATE.read_text(encoding="utf-8").format(
        name=name,
        description=description or f"`{backbone.architecture}` for anomalib, added by anomalib_spd.",
        architecture=backbone.architecture,
        layers=", ".join(f"`{layer}`" for layer in backbone.layers),
        layer_list=json.dumps(backbone.layers),
        n_features=backbone.n_features,
        license=_cell(backbone.license),
        data=_cell(provenance.data) or "not stated",
        recipe=_cell(provenance.summary()) or "not stated",
        command=f"`{_code(provenance.command)}`" if provenance.command else "not stated",
        checkpoint=_cell(provenance.made_from()) or "not stated",
        origin=_cell(backbone.pretrained_cfg.get("origin_url") or "") or "not stated",
        weights_file=WEIGHTS_FILE,
        sha256=provenance.sha256,
    )


def _cell(text: str) -> str:
    """Return text for a cell of a table in Markdown: what would be markup stands for itself."""
    return re.sub(r"([\\`|<>\[\]*])", r"\\\1", one_line(text))


def _code(text: str) -> str:
    return one_line(text).replace("`", "'").replace("|", r"\|")
