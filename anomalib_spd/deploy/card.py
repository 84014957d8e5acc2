"""The page about exported detectors, from their record."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from anomalib_spd.report.tables import LABELS

_TEMPLATE = Path(__file__).with_name("card.md.j2")


def card_text(record: dict[str, Any]) -> str:
    """Return the page, in Markdown.

    Args:
        record: content of ``deploy.json``.
    """
    environment = Environment(loader=FileSystemLoader(_TEMPLATE.parent))
    trained = record["trained"]
    return environment.get_template(_TEMPLATE.name).render(
        **record, judged=[*trained["metrics"]], labels=LABELS, threads_timed=[*trained["images_per_second"]]
    )
