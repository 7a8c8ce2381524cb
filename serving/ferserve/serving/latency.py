"""How long a batch takes: latency(n) = job_s * n + fixed_s, fitted anew with every batch that ends.

Pure: durations go in. The fit is exponentially weighted least squares, as recursive least squares with a forgetting
factor computes it, but kept as five fading sums: for two unknowns solving the normal equations is less work and cannot
drift. Three things it would get wrong by itself:

- While all batches are of one size, slope and intercept cannot be told apart. A fraction of an observation that nothing
  takes no time decides then, so that latency grows with the batch, which for larger batches is the careful answer.
- One pause of the machine would bend the line for a while. What lies further from the line than usual is moved nearer
  before it counts; a machine that has really changed its speed widens what is usual within a few batches.
- Neither coefficient is below zero, whatever noise says.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MEMORY: Final = 0.95
"""Weight that an earlier batch keeps at each new one: about the last twenty count."""
ORIGIN_WEIGHT: Final = 0.2
"""Of the observation that a batch of nothing takes no time."""
OUTLIER: Final = 4.0
"""How many usual errors a batch may lie off the line and count as it is."""
SETTLED: Final = 8.0
"""Weight of all batches from which on the line is known well enough to tell an outlier."""
LEAST_ERROR: Final = 0.05
"""The usual error is never taken to be less than this part of the prediction: clocks and schedulers are no better."""
LARGEST_ERROR: Final = 1.0
"""What one batch may count as, however far off it was, in the usual error."""
CAREFUL: Final = 2.0
"""How many usual errors a batch may take longer than expected without missing a deadline: about one in twenty does."""


@dataclass(frozen=True, slots=True)
class Line:
    """latency(n) = job_s * n + fixed_s, in seconds; both 0 or more."""

    job_s: float
    fixed_s: float

    def batches_s(self, jobs: int, batches: int) -> float:
        """What so many jobs take together in so many batches, one after the other."""
        return self.job_s * jobs + self.fixed_s * batches

    def enough_jobs(self, most: int, *, slack: float) -> int:
        """The fewest jobs in a batch where one costs at most `slack` more, as a part, than in a batch of `most`.

        What a batch costs beyond its jobs is spread over them; past some size there is little left to spread, and a
        larger batch only makes others wait for its end. `most` while nothing is known.
        """
        bearable_s = (1 + slack) * self.batches_s(most, 1) / most
        if bearable_s <= self.job_s:
            return most
        return min(max(math.ceil(self.fixed_s / (bearable_s - self.job_s)), 1), most)


class LatencyModel:
    """The latency of one worker's batches, or of one photo on one thread.

    Args:
        outliers: whether single durations far off the line are pauses of the machine. Jobs of many kinds, such as
            photos of one face and of hundreds, are no outliers: their mean is what a queue of them takes.
    """

    def __init__(self, *, outliers: bool = True) -> None:
        self._outliers = outliers
        self._sums = _Sums()
        self._error = 0.0

    @property
    def is_known(self) -> bool:
        """Whether anything was measured yet."""
        return self._sums.weight > 0

    @property
    def line(self) -> Line:
        """The line as it is now; zero before anything was measured."""
        return self._sums.line()

    @property
    def error_ratio(self) -> float:
        """How far off predictions usually were, as a part of the prediction; fades like everything here."""
        return self._error

    @property
    def _usual_error(self) -> float:
        return max(self._error, LEAST_ERROR)

    def finished(self, jobs: int, run_s: float) -> None:
        """Learn that a batch of so many jobs, at least 1, took `run_s` seconds."""
        expected_s = self.expected_s(jobs)
        if expected_s > 0:
            farthest = OUTLIER * self._usual_error
            off = (run_s - expected_s) / expected_s
            self._error = self._error * MEMORY + min(abs(off), LARGEST_ERROR) * (1 - MEMORY)
            if self._outliers and self._sums.weight > SETTLED:
                run_s = expected_s * (1 + min(max(off, -farthest), farthest))
        self._sums.fade()
        self._sums.add(jobs, run_s)

    def given_up(self, jobs: int, run_s: float) -> None:
        """Learn that a batch was given up after `run_s` seconds.

        The time is gone, and how much more it would have taken nobody knows. If such batches counted as done, slowness
        would look like speed; if they did not count at all, a gateway that became slow would never learn of it once all
        its answers come too late. So their time is added to that of the others.
        """
        self._sums.fade()
        self._sums.add_time(jobs, run_s)

    def expected_s(self, jobs: int) -> float:
        """What a batch of so many jobs takes; 0 before anything was measured."""
        return self.line.batches_s(jobs, 1)

    def queue_s(self, jobs: int, batches: int, running: Iterable[tuple[int, float]]) -> float:
        """What so many jobs in so many batches take, one batch after the other; 0 before anything is known.

        Args:
            running: jobs of each batch that runs now, and for how long it does. Those that take longer than the ones
                before them are noticed here, and not only when they are done.
        """
        so_far = self._sums.copy()
        for running_jobs, running_s in running:
            so_far.add(running_jobs, running_s)
        return max(line.batches_s(jobs, batches) for line in (self.line, so_far.line()))

    def most_jobs(self, left_s: float, most: int) -> int:
        """The most jobs, up to `most`, in a batch that is to be done within `left_s` seconds, at least 1.

        Careful, so that the usual error does not make it late. If one job alone could only just make it, it goes alone.
        If even that is too late, or nothing is known yet, the size makes no difference: `most`.
        """
        if not self.is_known:
            return most
        line = self.line
        careful_s = left_s / (1 + CAREFUL * self._usual_error)
        if line.batches_s(most, 1) <= careful_s:
            return most
        if line.batches_s(1, 1) > left_s:
            return most
        jobs = math.floor((careful_s - line.fixed_s) / line.job_s) if line.job_s > 0 else 1
        return min(max(jobs, 1), most)


@dataclass(slots=True)
class _Sums:
    """Fading sums over batches of n jobs that took t seconds: of the weights, n, n², t and n·t."""

    weight: float = 0.0
    n: float = 0.0
    nn: float = 0.0
    t: float = 0.0
    nt: float = 0.0

    def copy(self) -> "_Sums":
        return _Sums(self.weight, self.n, self.nn, self.t, self.nt)

    def fade(self) -> None:
        self.weight *= MEMORY
        self.n *= MEMORY
        self.nn *= MEMORY
        self.t *= MEMORY
        self.nt *= MEMORY

    def add(self, jobs: int, run_s: float) -> None:
        self.weight += 1
        self.n += jobs
        self.nn += jobs * jobs
        self.add_time(jobs, run_s)

    def add_time(self, jobs: int, run_s: float) -> None:
        self.t += run_s
        self.nt += jobs * run_s

    def line(self) -> Line:
        """The least squares' line with neither coefficient below zero."""
        if self.nn <= 0:
            return Line(0.0, 0.0)
        weight = self.weight + ORIGIN_WEIGHT
        determinant = self.nn * weight - self.n * self.n
        job_s = (self.nt * weight - self.n * self.t) / determinant
        fixed_s = (self.nn * self.t - self.n * self.nt) / determinant
        if fixed_s < 0:
            return Line(self.nt / self.nn, 0.0)
        if job_s < 0:
            return Line(0.0, self.t / self.weight)
        return Line(job_s, fixed_s)
