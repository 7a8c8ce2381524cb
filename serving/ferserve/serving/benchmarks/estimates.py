"""How sure a figure is: percentile intervals from a block bootstrap.

Neighbouring requests wait in the same queue, so their latencies are no independent draws. Whole blocks of time are
drawn instead (Künsch 1989); within a block everything stays as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]
Statistic = Callable[[Samples], float]
RESAMPLES: Final = 1000
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval; NaN where nothing was observed."""

    value: float
    low: float
    high: float


def mean(values: Samples) -> float:
    """The mean; NaN of nothing."""
    return float(values.mean()) if len(values) else float("nan")


def quantile(fraction: float) -> Statistic:
    """A statistic: the value that `fraction` of the values do not exceed; NaN of nothing."""

    def of(values: Samples) -> float:
        return float(np.quantile(values, fraction)) if len(values) else float("nan")

    return of


def estimate(blocks: Sequence[Samples], statistic: Statistic, *, seed: int = 0) -> Estimate:
    """A statistic of all values together, with the interval that drawing blocks anew gives."""
    return _with_interval(statistic(_joined(blocks)), _redrawn(blocks, statistic, np.random.default_rng(seed)))


def ratio(above: Sequence[Samples], below: Sequence[Samples], statistic: Statistic, *, seed: int = 0) -> Estimate:
    """The statistic of one measurement over that of another; both are drawn anew."""
    rng = np.random.default_rng(seed)
    value = statistic(_joined(above)) / statistic(_joined(below))
    return _with_interval(value, _redrawn(above, statistic, rng) / _redrawn(below, statistic, rng))


def _joined(blocks: Sequence[Samples]) -> Samples:
    return np.concatenate(blocks) if blocks else np.array([])


def _redrawn(blocks: Sequence[Samples], statistic: Statistic, rng: np.random.Generator) -> Samples:
    if not blocks:
        return np.full(RESAMPLES, np.nan)
    draws = rng.integers(0, len(blocks), size=(RESAMPLES, len(blocks)))
    return np.array([statistic(np.concatenate([blocks[index] for index in draw])) for draw in draws])


def _with_interval(value: float, redrawn: Samples) -> Estimate:
    known = redrawn[np.isfinite(redrawn)]
    if not len(known):
        return Estimate(value=value, low=float("nan"), high=float("nan"))
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value=value, low=float(low), high=float(high))
