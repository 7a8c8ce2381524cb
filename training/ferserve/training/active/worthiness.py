"""How much a face is worth labelling: S2's equations 7 to 10 over the patches of each face (after Zhou et al. 2017).

Patches of one face share its label, so a model that knows the face says the same of all of them and is sure of it. What
it is unsure of (entropy) or contradicts itself about (diversity) is worth a person's time.

Readings, where S2 leaves them open: logarithms are natural; alpha, which it does not print, is Zhou et al.'s 1/4,
rounded up to whole patches; probabilities are kept at `MIN_PROBABILITY` or more, since eq. 8 has no value at 0.

Shapes: N faces, M patches of each, K classes.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.training.recipe import check_setting

MIN_PROBABILITY: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class WorthSettings:
    """The weights of equation 9.

    Attributes:
        alpha: share of the patches that count, those with the most confidence in the face's dominant class.
        entropy_weight, diversity_weight: lambda 1 and lambda 2.
    """

    alpha: float = 0.25
    entropy_weight: float = 1.0
    diversity_weight: float = 0.5

    def __post_init__(self) -> None:
        check_setting(0 < self.alpha <= 1, "alpha", "more than 0, at most 1", self.alpha)
        for name in ("entropy_weight", "diversity_weight"):
            check_setting(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Worth:
    """What N faces are worth.

    Attributes:
        dominant: class with the highest mean probability over all patches (eq. 10), shape (N,).
        entropy: eq. 7, 0 to log K.
        diversity: eq. 8, 0 or more.
        worth: eq. 9.
    """

    dominant: NDArray[np.int64]
    entropy: NDArray[np.float64]
    diversity: NDArray[np.float64]
    worth: NDArray[np.float64]


def measure_worth(patches_NMK: NDArray[np.floating], settings: WorthSettings) -> Worth:
    """Equations 7 to 10.

    Args:
        patches_NMK: a model's scores of every patch; rows over K sum to 1.
    """
    dominant_N = patches_NMK.mean(axis=1).argmax(axis=1)
    kept_NAK = top_patches(patches_NMK, dominant_N, settings.alpha)
    entropy_N, diversity_N = entropy(kept_NAK), diversity(kept_NAK)
    return Worth(
        dominant=dominant_N,
        entropy=entropy_N,
        diversity=diversity_N,
        worth=settings.entropy_weight * entropy_N + settings.diversity_weight * diversity_N,
    )


def top_patches(patches_NMK: NDArray[np.floating], dominant_N: NDArray[np.int64], alpha: float) -> NDArray[np.floating]:
    """The alpha share of each face's patches, at least one, that are surest of its dominant class; surest first."""
    count = math.ceil(alpha * patches_NMK.shape[1])
    confidence_NM = np.take_along_axis(patches_NMK, dominant_N[:, None, None], axis=2)[:, :, 0]
    order_NA = np.argsort(-confidence_NM, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(patches_NMK, order_NA[:, :, None], axis=1)


def entropy(patches_NMK: NDArray[np.floating]) -> NDArray[np.float64]:
    """Equation 7: -1/m sum over patches and classes of p log p; shape (N,)."""
    p_NMK = _clipped(patches_NMK)
    mean_N: NDArray[np.float64] = -(p_NMK * np.log(p_NMK)).sum(axis=2).mean(axis=1)
    return mean_N


def diversity(patches_NMK: NDArray[np.floating]) -> NDArray[np.float64]:
    """Equation 8: sum over classes and pairs of patches of (p - q) log(p / q); shape (N,).

    Over all pairs sum_{j<l} (p_j - p_l)(log p_j - log p_l) = m sum_j p_j log p_j - sum_j p_j sum_j log p_j.
    """
    p_NMK = _clipped(patches_NMK)
    log_NMK = np.log(p_NMK)
    own_NK = p_NMK.shape[1] * (p_NMK * log_NMK).sum(axis=1)
    total_N: NDArray[np.float64] = (own_NK - p_NMK.sum(axis=1) * log_NMK.sum(axis=1)).sum(axis=1)
    return np.maximum(total_N, 0.0)  # rounding may leave a hair below


def _clipped(patches_NMK: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.clip(patches_NMK.astype(np.float64), MIN_PROBABILITY, 1.0)
