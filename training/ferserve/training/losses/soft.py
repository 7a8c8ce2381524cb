"""Cross-entropy against class distributions, and how FER-2013's label and FERPlus's votes become one."""

from typing import Final

import torch
from torch import Tensor

UNLABELLED: Final = -1
"""In place of a class, of a face that only teachers speak of."""


def soft_cross_entropy(logits_NK: Tensor, target_NK: Tensor) -> Tensor:
    """Mean over the batch of -sum_k t_k log softmax(z)_k, in float32 whatever the precision of the logits.

    Args:
        target_NK: distributions, rows sum to 1.
    """
    return -(target_NK * torch.log_softmax(logits_NK.float(), dim=1)).sum(dim=1).mean()


def blend_targets(label_N: Tensor, votes_NK: Tensor, *, vote_weight: float, smoothing: float) -> Tensor:
    """Target distributions from one hard label and the votes of several people for the same face.

    (1 - w) * onehot + w * votes / sum(votes), then label smoothing towards the uniform distribution. A face nobody
    voted for (a row of zeros) keeps its hard label.

    Args:
        label_N: class indices; what `UNLABELLED` gives is for nobody to use.
        votes_NK: counts of votes for each class, float.
        vote_weight: w, 0 to 1.
        smoothing: share of the uniform distribution, 0 to 1.
    Returns:
        (N, K) float32, rows sum to 1.
    """
    num_classes = votes_NK.shape[1]
    onehot_NK = torch.nn.functional.one_hot(label_N.clamp(min=0), num_classes).float()
    total_N1 = votes_NK.sum(dim=1, keepdim=True)
    voted_NK = torch.where(total_N1 > 0, votes_NK / total_N1.clamp(min=1.0), onehot_NK)
    mixed_NK = (1.0 - vote_weight) * onehot_NK + vote_weight * voted_NK
    return (1.0 - smoothing) * mixed_NK + smoothing / num_classes


def asked_labels(label_N: Tensor, votes_NK: Tensor, *, vote_weight: float) -> Tensor:
    """The class that a classifier is to name of each face, (N,): the label, or where votes outweigh it, theirs.

    Args:
        label_N, votes_NK, vote_weight: see `blend_targets`.
    """
    return blend_targets(label_N, votes_NK, vote_weight=vote_weight, smoothing=0.0).argmax(dim=1)
