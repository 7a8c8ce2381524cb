"""From logits to scores that mean something, and the score below which a face counts as uncertain.

Both are chosen on the validation split, which gradients never saw and which holds no test picture.

Shapes: N faces, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

TARGET_ACCURACY = 0.8
"""What the faces that are not uncertain should reach together."""
MIN_COVERAGE = 0.5
"""At least this share of faces stays certain, even if the target is out of reach."""


BIAS_PENALTY = 1e-3
"""Weight of the squared biases in the fit; enough to keep a class that the split hardly holds near zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What turns logits into calibrated scores: softmax(logits / temperature + bias).

    Attributes:
        temperature: more than 0.
        bias: one number a class, in the labels' order; (0, ..., 0) is plain temperature scaling.
    """

    temperature: float
    bias: tuple[float, ...]

    def scores(self, logits_NK: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated scores, shape (N, K)."""
        scaled = logits_NK.astype(np.float64) / self.temperature + np.asarray(self.bias)
        scores: NDArray[np.float64] = softmax(scaled, axis=1)
        return scores


def identity_scaling(classes: int) -> Scaling:
    """The scores that a net gives by itself."""
    return Scaling(temperature=1.0, bias=(0.0,) * classes)


def fit_scaling(logits_NK: NDArray[np.floating], labels_N: NDArray[np.int64]) -> Scaling:
    """Bias-corrected temperature scaling (Alexandari et al. 2020, section 3.2), by maximum likelihood.

    The biases matter where targets were soft: FERPlus's voters name fear less often than FER-2013's labels do: a net
    that learnt from both is calibrated for neither until its class frequencies are set right.
    """
    rows = np.arange(len(labels_N))
    logits = logits_NK.astype(np.float64)

    def loss(parameters: NDArray[np.float64]) -> float:
        log_scores = log_softmax(logits * np.exp(-parameters[0]) + parameters[1:], axis=1)
        return float(-log_scores[rows, labels_N].mean() + BIAS_PENALTY * np.square(parameters[1:]).sum())

    best = minimize(loss, np.zeros(1 + logits.shape[1]), method="BFGS").x
    return Scaling(temperature=float(np.exp(best[0])), bias=tuple(float(value) for value in best[1:]))


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
