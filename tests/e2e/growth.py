"""Whether memory grows with the requests that are answered."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
RESAMPLES: Final = 1000
BLOCK: Final = 10
"""Readings that stay together when they are resampled: an allocator's steps make neighbours alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Bytes kept for each request, or for each second where those were given, with its 95 % interval."""

    slope: float
    low: float
    high: float

    def __str__(self) -> str:
        """For people."""
        return f"{self.slope:.0f} bytes a request (95 % interval {self.low:.0f} to {self.high:.0f})"


def growth(progress: Floats, resident: Floats) -> Growth:
    """The Theil-Sen slope over the second half of the readings: the first half may still fill caches and arenas.

    The interval is that of a bootstrap over blocks of residuals.

    Args:
        progress: requests answered, or seconds passed, before each reading; rising.
        resident: bytes at each reading.
    """
    half = len(progress) // 2
    x, y = progress[half:].astype(float), resident[half:].astype(float)
    slope = _slope(x, y)
    residuals = y - slope * x
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(x) - BLOCK + 1, (RESAMPLES, -(-len(x) // BLOCK)))
    places = (starts[:, :, None] + np.arange(BLOCK)).reshape(RESAMPLES, -1)[:, : len(x)]
    slopes = [slope + _slope(x, residuals[place]) for place in places]
    low, high = np.percentile(slopes, [2.5, 97.5])
    return Growth(slope=slope, low=float(low), high=float(high))


def _slope(x: Floats, y: Floats) -> float:
    """The median of the slopes between all pairs."""
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))
