"""Losses of SimSiam, MoCo and SimCLR, as pure functions."""

import torch
import torch.nn.functional as F
from torch import Tensor


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    r"""Pull a prediction to a projection, through which no gradient flows (SimSiam).

    :math:`D(p, z) = -\frac{1}{N} \sum_i \mathrm{sim}(p_i, z_i)`; SimSiam's loss is the mean of both directions.

    Source: Chen & He, Exploring Simple Siamese Representation Learning (CVPR 2021), equations 1 and 3.

    Args:
        p: predictions ``(B, D)``, floating.
        z: projections of the other view, ``(B, D)``.

    Returns:
        the loss in ``[-1, 1]``, a scalar.
    """
    return -F.cosine_similarity(p, z.detach(), dim=1).mean()


def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    r"""Distinguish the key of the same image from those of a queue (MoCo).

    :math:`L = -\frac{1}{N} \sum_i \log \frac{\exp(q_i k_i / \tau)}{\exp(q_i k_i / \tau) + \sum_j \exp(q_i n_j / \tau)}` of
    unit vectors. No gradient flows through keys and queue.

    Source: He et al., Momentum Contrast (CVPR 2020), equation 1.

    Args:
        q: queries ``(B, D)``, of any length, floating.
        k: keys of the same images, ``(B, D)``, of any length.
        queue: keys of other images ``(K, D)``, of any length.
        temperature: tau, positive.

    Returns:
        the loss, not negative, a scalar.
    """
    q, k, queue = (F.normalize(each, dim=1) for each in (q, k.detach(), queue.detach()))
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(q), dtype=torch.long))


def nt_xent(z_1: Tensor, z_2: Tensor, temperature: float) -> Tensor:
    r"""Distinguish the other view of the same image from all other views of a batch (SimCLR).

    :math:`\ell_{i,j} = -\log \frac{\exp(\mathrm{sim}(z_i, z_j) / \tau)}{\sum_{k \neq i} \exp(\mathrm{sim}(z_i, z_k) / \tau)}`, the
    mean over all 2N views with their partners j.

    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (ICML 2020), equation 1. SPD's
    paper sums over the other images' second views alone; this is SimCLR's own, over both.

    Args:
        z_1: projections of one view ``(B, D)``, floating.
        z_2: of the other, ``(B, D)``.
        temperature: tau, positive.

    Returns:
        the loss, not negative, a scalar.
    """
    z = F.normalize(torch.cat([z_1, z_2]), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(z_1))
    return F.cross_entropy(logits, partner)
