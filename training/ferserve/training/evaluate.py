"""Measures on a labelled split: accuracy with its interval, calibration, confusion.

Shapes: N faces, K = 7 classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ferserve.faces.labels import LABELS
from ferserve.training.crops import to_input

CALIBRATION_BINS = 15
Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


@torch.no_grad()
def predict_logits(net: nn.Module, crops_NSSC: Tensor, *, size_px: int, batch: int = 256) -> NDArray[np.float32]:
    """Logits of a net in eval mode, float32, shape (N, K)."""
    net.eval()
    device = next(net.parameters()).device
    parts = []
    for crops in torch.split(crops_NSSC, batch):
        x_NCHW = to_input(crops.to(device), size_px=size_px).contiguous(memory_format=torch.channels_last)
        logits_NK, _ = net(x_NCHW)
        parts.append(logits_NK.float().cpu())
    return torch.cat(parts).numpy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A share with its 95 % Wilson interval, all 0 to 1."""

    value: float
    low: float
    high: float


def wilson(hits: int, total: int) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927), which stays inside [0, 1] and holds at the edges."""
    if total <= 0:
        raise ValueError(f"total must be more than 0, got {total}")
    share = hits / total
    z2 = Z_95**2
    center = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * np.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return Interval(value=share, low=float(center - half), high=float(center + half))


def expected_calibration_error(scores_NK: NDArray[np.floating], labels_N: NDArray[np.int64]) -> float:
    """ECE of the top label over 15 equal-width bins (Guo et al. 2017, eq. 3), 0 to 1."""
    top_N = scores_NK.max(axis=1)
    right_N = scores_NK.argmax(axis=1) == labels_N
    bins_N = np.minimum((top_N * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = [
        abs(right_N[bins_N == b].mean() - top_N[bins_N == b].mean()) * (bins_N == b).mean() for b in np.unique(bins_N)
    ]
    return float(np.sum(gaps))


def brier_score(scores_NK: NDArray[np.floating], labels_N: NDArray[np.int64]) -> float:
    """Mean squared distance of the scores to the one-hot label, 0 to 2 (Brier 1950)."""
    onehot_NK = np.eye(scores_NK.shape[1])[labels_N]
    return float(np.square(scores_NK - onehot_NK).sum(axis=1).mean())


def confusion_matrix(predicted_N: NDArray[np.int64], labels_N: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts, rows the true class, columns the predicted one; shape (K, K)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels_N, predicted_N), 1)
    return matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one scorer does on one labelled split; all shares 0 to 1.

    Attributes:
        faces: how many were scored.
        macro_f1: mean over the classes of the F1 score.
        nll: mean negative log-likelihood of the true class.
        certain_share, certain_accuracy: faces at or above the archive's uncertainty threshold.
        per_class: recall of each class with its interval, by label.
        confusion: counts, rows the true class, columns the predicted one, in the labels' order.
    """

    faces: int
    accuracy: Interval
    macro_f1: float
    ece: float
    brier: float
    nll: float
    certain_share: float
    certain_accuracy: float
    per_class: dict[str, Interval]
    confusion: list[list[int]]


def make_report(
    scores_NK: NDArray[np.floating],
    labels_N: NDArray[np.int64],
    *,
    uncertain_below: float = 0.0,
    names: Sequence[str] = LABELS,
) -> Report:
    """Measure calibrated scores (N, K) against labels (N,).

    Args:
        names: of the K classes; ours unless a data set has more.
    """
    if len(labels_N) == 0:
        raise ValueError("expected at least one labelled face, got none")
    predicted_N = scores_NK.argmax(axis=1)
    matrix = confusion_matrix(predicted_N, labels_N, len(names))
    hits, support, named = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    certain_N = scores_NK.max(axis=1) >= uncertain_below
    true_score_N = scores_NK[np.arange(len(labels_N)), labels_N]
    return Report(
        faces=len(labels_N),
        accuracy=wilson(int(hits.sum()), len(labels_N)),
        macro_f1=float((2 * hits / np.maximum(1, support + named))[support > 0].mean()),
        ece=expected_calibration_error(scores_NK, labels_N),
        brier=brier_score(scores_NK, labels_N),
        nll=float(-np.log(np.maximum(true_score_N, 1e-12)).mean()),
        certain_share=float(certain_N.mean()),
        certain_accuracy=float((predicted_N == labels_N)[certain_N].mean()) if certain_N.any() else 0.0,
        per_class={
            label: wilson(int(hit), int(total))
            for label, hit, total in zip(names, hits, support, strict=True)
            if total > 0
        },
        confusion=matrix.tolist(),
    )
