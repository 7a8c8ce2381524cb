"""From logits to scores that mean something: a temperature, and the score below which a face counts as uncertain.

Both are chosen on the validation split, which gradients never saw and which holds no test picture.

Shapes: N faces, K classes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

TARGET_ACCURACY = 0.8
"""What the faces that are not uncertain should reach together."""
MIN_COVERAGE = 0.5
"""At least this share of faces stays certain, even if the target is out of reach."""


def fit_temperature(logits_NK: NDArray[np.floating], labels_N: NDArray[np.int64]) -> float:
    """The T > 0 for which softmax(logits / T) has the smallest negative log-likelihood (Guo et al. 2017)."""
    rows = np.arange(len(labels_N))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits_NK / np.exp(log_temperature), axis=1)[rows, labels_N].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def calibrated(logits_NK: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """softmax(logits / T), shape (N, K)."""
    scores: NDArray[np.float64] = softmax(logits_NK.astype(np.float64) / temperature, axis=1)
    return scores


def uncertainty_threshold(scores_NK: NDArray[np.floating], labels_N: NDArray[np.int64]) -> float:
    """The lowest top score from which on faces are right often enough.

    Walks the risk-coverage curve (El-Yaniv & Wiener 2010) from full coverage down, and stops at the first threshold
    where the faces at or above it are right in `TARGET_ACCURACY` of cases, or at `MIN_COVERAGE`.

    Returns:
        A score, 0 to 1, rounded to three digits; faces with a lower top score are `uncertain`.
    """
    top_N = scores_NK.max(axis=1)
    order = np.argsort(-top_N, kind="stable")
    right = (scores_NK.argmax(axis=1) == labels_N)[order]
    accuracy = np.cumsum(right) / np.arange(1, len(right) + 1)
    good = np.flatnonzero(accuracy >= TARGET_ACCURACY)
    fewest = max(0, int(np.ceil(MIN_COVERAGE * len(right))) - 1)
    last_certain = max(int(good[-1]) if len(good) else 0, fewest)
    if last_certain == len(right) - 1:
        return 0.0
    return round(float(top_N[order[last_certain]]), 3)
