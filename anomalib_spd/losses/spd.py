"""SPot-the-Difference on pooled features, as pure functions."""

import torch
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


def two_way_loss(logits_p: Tensor, logits_n: Tensor) -> Tensor:
    r"""SPot-the-Difference of the supervised arm: tell the perturbed images from the others.

    :math:`L = -\frac{1}{2N} \sum_i [\log p_0(x^p_i) + \log p_1(x^n_i)]`, the cross-entropy of a classification in two,
    with :math:`p` the softmax of the logits.

    Source: Zou et al., SPot-the-Difference Self-Supervised Pre-training (ECCV 2022), section 3, supervised arm.

    Args:
        logits_p: of images slightly changed as a whole, ``(B, 2)``, floating: column 0 says that there is no local
            perturbation, column 1 that there is.
        logits_n: of the same images slightly changed as a whole and locally perturbed, ``(B, 2)``.

    Returns:
        the loss, not negative, :math:`\log 2` for logits that see no difference at all; a scalar.
    """
    perturbed = torch.arange(2, device=logits_p.device).repeat_interleave(len(logits_p))
    return F.cross_entropy(torch.cat([logits_p, logits_n]), perturbed)
