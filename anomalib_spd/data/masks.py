"""Whether a data module has masks of its anomalies."""

from anomalib.data import AnomalibDataModule


def has_masks(data: AnomalibDataModule) -> bool:
    """Return whether every anomalous test image of a data module has a mask.

    Args:
        data: a data module that is set up.
    """
    samples = data.test_data.samples
    if "mask_path" not in samples:
        return False
    masks = samples.mask_path[samples.label_index == 1]
    return bool(len(masks)) and bool((masks.notna() & (masks != "")).all())
