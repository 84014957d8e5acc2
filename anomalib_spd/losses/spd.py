"""SPot-the-Difference on pooled features, as pure functions.

Source: Zou et al., SPot-the-Difference Self-Supervised Pre-training (ECCV 2022), section 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def spd_loss(z_a: Tensor, z_p: Tensor, z_n: Tensor, stop_gradient: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    r"""Push the negative away from the anchor, and pull the positive to it.

    :math:`L = \frac{1}{N} \sum_i [\mathrm{sim}(z^a_i, z^n_i) - \mathrm{sim}(z^a_i, z^p_i)]` with the cosine similarity;
    no margin, no temperature. The paper does not say where gradients flow: by default into all three (ours).

    Args:
        z_a: anchors ``(B, D)``, floating.
        z_p: the same images after a weak global augmentation, ``(B, D)``.
        z_n: the same images after a weak global augmentation and a local perturbation, ``(B, D)``.
        stop_gradient: let no gradient flow into the anchors.

    Returns:
        the loss in ``[-2, 2]``, 0 for features that see no difference at all, and its two terms, the mean similarity of
        anchors to positives and to negatives, each in ``[-1, 1]``; all scalars.
    """
    z_a = z_a.detach() if stop_gradient else z_a
    sim_ap = F.cosine_similarity(z_a, z_p, dim=1).mean()
    sim_an = F.cosine_similarity(z_a, z_n, dim=1).mean()
    return sim_an - sim_ap, sim_ap, sim_an


def two_way_loss(logits_p: Tensor, logits_n: Tensor) -> Tensor:
    r"""Classify images as locally perturbed or not (the paper's supervised arm).

    :math:`L = -\frac{1}{2N} \sum_i [\log p_0(x^p_i) + \log p_1(x^n_i)]`, the cross-entropy, with :math:`p` the softmax of the
    logits.

    Args:
        logits_p: of the positives, ``(B, 2)``, floating: column 0 is "not perturbed", column 1 "perturbed".
        logits_n: of the negatives, ``(B, 2)``.

    Returns:
        the loss, not negative, :math:`\log 2` for logits that see no difference at all; a scalar.
    """
    perturbed = torch.arange(2, device=logits_p.device).repeat_interleave(len(logits_p))
    return F.cross_entropy(torch.cat([logits_p, logits_n]), perturbed)
