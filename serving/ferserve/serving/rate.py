"""How fast work is being finished: for telling a refused caller when to come back.

Pure: readings of a clock go in.
"""

from typing import Final

MIN_RETRY_S: Final = 0.05
MAX_RETRY_S: Final = 30.0
DEFAULT_RETRY_S: Final = 1.0
"""What a caller is told before anything was measured."""

_MEMORY: Final = 0.9
"""Weight that an earlier observation keeps at each new one: about the last ten count."""


class ServiceRate:
    """Items finished a second while there was work, as a ratio of two fading sums.

    Time without work does not count: an idle gateway is not a slow one.
    """

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._items = 0.0
        self._busy_s = 0.0

    def work_began(self, now_s: float) -> None:
        """Work is there; starts the measuring if there was none."""
        if self._since_s is None:
            self._since_s = now_s

    def work_ended(self) -> None:
        """Nothing is left to do; what follows until `work_began` does not count."""
        self._since_s = None

    def finished(self, items: int, now_s: float) -> None:
        """Count items as finished since the last call, or since work began; without work begun nothing counts."""
        if self._since_s is None:
            return
        self._items = self._items * _MEMORY + items
        self._busy_s = self._busy_s * _MEMORY + max(now_s - self._since_s, 0.0)
        self._since_s = now_s

    def retry_after_s(self, items: int) -> float:
        """Seconds that finishing `items` takes at the measured rate, within `MIN_RETRY_S` and `MAX_RETRY_S`."""
        if self._items <= 0:
            return DEFAULT_RETRY_S
        return within_bounds(items * self._busy_s / self._items)


def within_bounds(retry_s: float) -> float:
    """A time to come back after that is neither at once nor next week."""
    return min(max(retry_s, MIN_RETRY_S), MAX_RETRY_S)
