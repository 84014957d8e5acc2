"""A run's settings: what a training resumes with, and with nothing else."""

from collections.abc import Mapping
from typing import Any

#: what to do where a folder holds another run
OTHER_RUN = (
    "Give this run a folder of its own with --trainer.default_root_dir (finetune: --name or --folder), or begin anew in it with "
    "--ckpt_path none."
)


def check_same_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a checkpoint is of this run.

    Args:
        before: settings of the checkpoint, by name; those that it does not state are not compared.
        now: settings of this run. ``images`` is a digest, which the message does not print.

    Raises:
        ValueError: where some differ, with their names and both values.
    """
    changed = {key: value for key, value in now.items() if key in before and before[key] != value}
    if changed:
        parts = (
            "other images" if key == "images" else f"{key}: {before[key]!r} then, {value!r} now"
            for key, value in changed.items()
        )
        raise ValueError(f"The checkpoint belongs to a run with other settings ({', '.join(parts)}). {OTHER_RUN}")
