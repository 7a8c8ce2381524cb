"""When requests come: drawn before the measurement from a seed, so that what is measured cannot change it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]
"""Times since the beginning of a load, rising."""


def poisson_arrivals_s(rate_per_s: float, duration_s: float, *, seed: int) -> Seconds:
    """Arrivals of a Poisson process: many callers who know nothing of each other.

    Args:
        rate_per_s: on average, above 0.
        duration_s: arrivals lie in [0, duration_s).
        seed: the same one gives the same arrivals; with another rate they are stretched, not drawn anew.
    """
    if not rate_per_s > 0:
        raise ValueError(f"rate_per_s must be above 0, got {rate_per_s}")
    expected = rate_per_s * duration_s
    draws = int(expected + 10 * np.sqrt(expected) + 10)  # more are needed once in about 10**23 loads
    times_s = np.cumsum(np.random.default_rng(seed).standard_exponential(draws)) / rate_per_s
    return times_s[times_s < duration_s]


def merged_arrivals_s(rates_per_s: Sequence[float], duration_s: float, *, seed: int) -> list[tuple[float, int]]:
    """Independent Poisson processes side by side.

    Args:
        seed: of the first process; each further one has the next.
    Returns:
        When a request is due, rising, and which process it belongs to.
    """
    return sorted(
        (due_s, number)
        for number, rate_per_s in enumerate(rates_per_s)
        for due_s in poisson_arrivals_s(rate_per_s, duration_s, seed=seed + number).tolist()
    )
