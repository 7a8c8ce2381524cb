"""How much of a graph's answers another precision of it keeps, face by face, and the rule by which it may ship.

Shapes: N faces, K = 7 classes.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ferserve.training.evaluate import Z_95, Interval, expected_calibration_error, wilson

MAX_ACCURACY_LOSS: Final = 0.003
MIN_AGREEMENT: Final = 0.97
"""The rule: a graph ships if it loses at most so much accuracy and keeps more than so many of float32's top classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Accuracy against float32's on the same faces.

    Attributes:
        difference: accuracy minus float32's, with the 95 % interval of Bonett & Price 2012 for paired proportions.
        only_float_right, only_this_right: faces that one of the two names rightly.
        p_value: of McNemar's exact test that the two are equally accurate.
    """

    difference: Interval
    only_float_right: int
    only_this_right: int
    p_value: float


def paired_difference(float_right_N: NDArray[np.bool_], right_N: NDArray[np.bool_]) -> Paired:
    """Compare two scorers on the same faces."""
    total = len(right_N)
    lost, won = int((float_right_N & ~right_N).sum()), int((right_N & ~float_right_N).sum())
    # Bonett & Price add a face to each of the two disagreements: the interval keeps a width where there are none.
    share_lost, share_won = (lost + 1) / (total + 2), (won + 1) / (total + 2)
    center = share_won - share_lost
    half = Z_95 * float(np.sqrt((share_won + share_lost - center**2) / (total + 2)))
    return Paired(
        difference=Interval(value=(won - lost) / total, low=center - half, high=center + half),
        only_float_right=lost,
        only_this_right=won,
        p_value=float(binomtest(won, won + lost).pvalue) if won + lost else 1.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """What is left of float32's answers; shares 0 to 1.

    Attributes:
        agreement: faces with the same top class as float32.
        mean_score_change, largest_score_change: over all faces and classes, 0 to 1.
    """

    faces: int
    accuracy: Interval
    ece: float
    paired: Paired
    agreement: Interval
    mean_score_change: float
    largest_score_change: float

    @property
    def objections(self) -> tuple[str, ...]:
        """What the rule holds against shipping it; empty if nothing."""
        found = []
        if -self.paired.difference.value > MAX_ACCURACY_LOSS:
            found.append(f"loses {-100 * self.paired.difference.value:.2f} points of {100 * MAX_ACCURACY_LOSS:.1f}")
        if self.agreement.value <= MIN_AGREEMENT:
            found.append(f"agrees on {100 * self.agreement.value:.2f} %, not on more than {100 * MIN_AGREEMENT:.0f} %")
        return tuple(found)


def compare(
    float_scores_NK: NDArray[np.float32], scores_NK: NDArray[np.float32], labels_N: NDArray[np.int64]
) -> Fidelity:
    """Hold scores against float32's and against the labels."""
    float_top_N, top_N = float_scores_NK.argmax(axis=1), scores_NK.argmax(axis=1)
    right_N = top_N == labels_N
    change_NK = np.abs(scores_NK - float_scores_NK)
    return Fidelity(
        faces=len(labels_N),
        accuracy=wilson(int(right_N.sum()), len(labels_N)),
        ece=expected_calibration_error(scores_NK, labels_N),
        paired=paired_difference(float_top_N == labels_N, right_N),
        agreement=wilson(int((top_N == float_top_N).sum()), len(labels_N)),
        mean_score_change=float(change_NK.mean()),
        largest_score_change=float(change_NK.max()),
    )
