"""The papers' losses as pure functions."""

import torch.nn.functional as F
from torch import Tensor


def spd_loss(z_a: Tensor, z_p: Tensor, z_n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""SPot-the-Difference: draw the negative away from the anchor, the positive to it.

    :math:`L = \frac{1}{N} \sum_i [\mathrm{sim}(z^a_i, z^n_i) - \mathrm{sim}(z^a_i, z^p_i)]` with the cosine similarity;
    no margin, no temperature, gradient into all three.

    Source: Zou et al., SPot-the-Difference Self-Supervised Pre-training (ECCV 2022), section 3.

    Args:
        z_a: anchors ``(B, D)``, floating.
        z_p: the same images slightly changed as a whole, ``(B, D)``.
        z_n: the same images slightly changed as a whole and locally perturbed, ``(B, D)``.

    Returns:
        the loss in ``[-2, 2]``, 0 for features that see no difference at all, and its two terms, the mean similarity of
        anchors to positives and to negatives, each in ``[-1, 1]``; all scalars.
    """
    sim_ap = F.cosine_similarity(z_a, z_p, dim=1).mean()
    sim_an = F.cosine_similarity(z_a, z_n, dim=1).mean()
    return sim_an - sim_ap, sim_ap, sim_an
