"""Softmax-MSE (Zhai et al. 2017, equations 1 to 4; Xu et al., equations 3 to 6), and what its name promises.

Of a prediction y' = sum_k k * p_k and a label y the papers report

    L = mean_j (y'_j - y_j)^2,      but define its gradient as softmax cross-entropy's:  dL_j / dx_i = p_i - [i = y_j].

So a net trained by it takes the very path that cross-entropy takes; the value alone differs. `softmax_mse` is that, to
the letter. `cross_entropy_and_mse` is our own second reading, CE + w * MSE with the true gradient of both, under a name
of its own.

A target that is a distribution t (votes, a teacher) stands for the label's one-hot: y = sum_k k * t_k, gradient p - t.

Shapes: N faces, K classes.
"""

from typing import Any

import torch
from torch import Tensor

from ferserve.training.losses.soft import soft_cross_entropy


def expected_class(scores_NK: Tensor) -> Tensor:
    """sum_k k * p_k of each row, (N,): a class number taken for a quantity."""
    return scores_NK @ torch.arange(scores_NK.shape[1], dtype=scores_NK.dtype, device=scores_NK.device)


class _SoftmaxMse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_NK: Tensor, target_NK: Tensor) -> Tensor:
        score_NK = torch.softmax(logits_NK, dim=1)
        ctx.save_for_backward(score_NK, target_NK)
        return (expected_class(score_NK) - expected_class(target_NK)).square().mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        score_NK, target_NK = ctx.saved_tensors
        return gradient * (score_NK - target_NK) / len(score_NK), None


def softmax_mse(logits_NK: Tensor, target_NK: Tensor) -> Tensor:
    """Value of the mean squared error, gradient of softmax cross-entropy; in float32 whatever the logits' precision.

    Args:
        target_NK: distributions, rows sum to 1.
    """
    loss: Tensor = _SoftmaxMse.apply(logits_NK.float(), target_NK)  # type: ignore[no-untyped-call]
    return loss


def cross_entropy_and_mse(logits_NK: Tensor, target_NK: Tensor, *, weight: float) -> Tensor:
    """CE + w * mean((y' - y)^2), with the true gradient of both.

    Args:
        target_NK: see `softmax_mse`.
        weight: w, 0 or more.
    """
    score_NK = torch.softmax(logits_NK.float(), dim=1)
    error_N = expected_class(score_NK) - expected_class(target_NK)
    return soft_cross_entropy(logits_NK, target_NK) + weight * error_N.square().mean()
