"""Faces per second of several graphs on one thread, taken in turns so that whatever else the machine does meets all.

Two clocks: `core` counts the time that the thread had a core, which another process's load leaves alone, and `wall`
what a caller waits.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Scorer = Callable[[NDArray[Any]], object]
ClockName = Literal["core", "wall"]
CLOCKS: Final[dict[ClockName, Callable[[], float]]] = {"core": time.thread_time, "wall": time.perf_counter}
BATCHES: Final = (1, 8)
ROUNDS: Final = 30
ROUND_FACES: Final = 32
"""Faces that one graph scores before the next has its turn: a tenth of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quartiles:
    """Lower quartile, median and upper quartile over the rounds."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One graph at one batch size.

    Attributes:
        ratio: to the first graph of the same round; more than 1 is faster.
    """

    batch: int
    clock: ClockName
    faces_per_s: Quartiles
    ratio: Quartiles


def measure_speeds(
    scorers: Mapping[str, Scorer],
    crops: NDArray[Any],
    *,
    rounds: int = ROUNDS,
    clocks: Mapping[ClockName, Callable[[], float]] = CLOCKS,
) -> dict[str, tuple[Speed, ...]]:
    """Time graphs against the first of them.

    Args:
        scorers: by name; each runs in the calling thread, and the first is what ratios refer to.
        crops: shape (N, ...), N >= 1, sliced along its first axis: crops, or their numbers where each graph takes crops
            of its own; of more than `ROUND_FACES` the first are taken, fewer are repeated.
    """
    crops = crops[np.arange(ROUND_FACES) % len(crops)]
    names = list(scorers)
    speeds: dict[str, tuple[Speed, ...]] = dict.fromkeys(names, ())
    for batch in BATCHES:
        spent = {name: np.zeros((rounds, len(clocks))) for name in names}
        for name in names:  # the first calls also allocate
            _score_all(scorers[name], crops, batch, clocks)
        for turn in range(rounds):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                spent[name][turn] = _score_all(scorers[name], crops, batch, clocks)
        for column, clock in enumerate(clocks):
            reference_s = spent[names[0]][:, column]
            for name in names:
                spent_s = spent[name][:, column]
                speed = Speed(
                    batch=batch,
                    clock=clock,
                    faces_per_s=_quartiles(ROUND_FACES / spent_s),
                    ratio=_quartiles(reference_s / spent_s),
                )
                speeds[name] += (speed,)
    return speeds


def _score_all(
    score: Scorer, crops: NDArray[Any], batch: int, clocks: Mapping[ClockName, Callable[[], float]]
) -> list[float]:
    """Seconds of each clock for `ROUND_FACES` faces in batches."""
    before = [clock() for clock in clocks.values()]
    for start in range(0, ROUND_FACES, batch):
        score(crops[start : start + batch])
    return [clock() - started for clock, started in zip(clocks.values(), before, strict=True)]


def _quartiles(values: NDArray[np.float64]) -> Quartiles:
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Quartiles(low=float(low), median=float(median), high=float(high))
