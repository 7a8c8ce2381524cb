"""Intervals for figures that are not one count of independent faces: several seeds, several faces of a person.

Shapes: N faces, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from ferserve.training.evaluate import Interval

RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class OverSeeds:
    """A mean over runs that differ in their seed alone, with the 95 % interval of Student's t.

    Attributes:
        deviation: the runs' standard deviation.
    """

    mean: float
    low: float
    high: float
    deviation: float
    runs: int


def over_seeds(values: Sequence[float]) -> OverSeeds:
    """Summarise runs.

    Raises:
        ValueError: fewer than two, which have no spread.
    """
    if len(values) < 2:
        raise ValueError(f"expected at least two runs, got {len(values)}")
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return OverSeeds(mean=mean, low=mean - half, high=mean + half, deviation=deviation, runs=len(values))


def over_people(right_N: NDArray[np.bool_] | NDArray[np.floating], people: Sequence[str], *, seed: int = 0) -> Interval:
    """Accuracy with a 95 % percentile interval that resamples people, not faces (Efron 1979; Field & Welsh 2007).

    Faces of one person are no independent trials: Wilson's interval over faces would be too narrow.

    Args:
        right_N: whether, or in which share of several runs, each face was named rightly.
    Raises:
        ValueError: no face, or another number of people than faces.
    """
    return _resampled(right_N.astype(np.float64), people, seed)


def difference_over_people(
    right_N: NDArray[np.bool_] | NDArray[np.floating],
    than_N: NDArray[np.bool_] | NDArray[np.floating],
    people: Sequence[str],
    *,
    seed: int = 0,
) -> Interval:
    """The same of one accuracy less another's on the same faces, -1 to 1.

    Raises:
        ValueError: see `over_people`.
    """
    return _resampled(right_N.astype(np.float64) - than_N.astype(np.float64), people, seed)


def _resampled(values_N: NDArray[np.float64], people: Sequence[str], seed: int) -> Interval:
    if len(values_N) == 0 or len(values_N) != len(people):
        raise ValueError(f"expected one or more faces and a person for each, got {len(values_N)} and {len(people)}")
    names, person_N = np.unique(np.asarray(people), return_inverse=True)
    sums_P = np.bincount(person_N, weights=values_N, minlength=len(names))
    faces_P = np.bincount(person_N, minlength=len(names))
    drawn_RP = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
    means_R = sums_P[drawn_RP].sum(axis=1) / faces_P[drawn_RP].sum(axis=1)
    low, high = np.percentile(means_R, (2.5, 97.5))
    return Interval(value=float(values_N.mean()), low=float(low), high=float(high))
