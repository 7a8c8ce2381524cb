"""When a worker is used, when it is left alone, and when it gets another chance: a pure decision, readings go in.

CLOSED ── failures in a row, a wrong answer, a failed probe ──> OPEN ── after a while ──> HALF_OPEN ── trial ──> CLOSED
                                                                 ^───────────── failed trial, twice the while ──┘

The trial is a probe and never a caller's batch. A worker that passes trials and fails batches does not flap for ever:
only a scored batch brings the while back to where it began.
"""

from enum import StrEnum


class CircuitState(StrEnum):
    """What a worker is trusted with."""

    CLOSED = "closed"
    """Batches."""
    OPEN = "open"
    """Nothing."""
    HALF_OPEN = "half_open"
    """The trial that runs now."""


class Circuit:
    """The circuit of one worker, born open and due for its first trial.

    Args:
        failures_to_open: failures in a row that open it.
        retry_s: first wait between opening and trial.
        max_retry_s: longest wait.
    """

    def __init__(self, *, failures_to_open: int, retry_s: float, max_retry_s: float) -> None:
        self._failures_to_open = failures_to_open
        self._retry_s = retry_s
        self._max_retry_s = max_retry_s
        self._next_wait_s = retry_s
        self._failures = 0
        self.state = CircuitState.OPEN
        self.trial_at_s = float("-inf")

    def scored(self) -> None:
        """A batch was scored well. Of an open circuit that was begun before: its trial decides, not this."""
        if self.state is CircuitState.CLOSED:
            self._failures = 0
            self._next_wait_s = self._retry_s

    def failed(self, now_s: float, *, at_once: bool = False) -> bool:
        """A batch or a probe failed. What was begun before an opening does not count again.

        Args:
            at_once: it is proof enough by itself.
        Returns:
            Whether that opened the circuit.
        """
        if self.state is not CircuitState.CLOSED:
            return False
        self._failures += 1
        if not at_once and self._failures < self._failures_to_open:
            return False
        self._open(now_s)
        return True

    def begin_trial(self) -> None:
        """A trial begins; ends with `end_trial`."""
        self.state = CircuitState.HALF_OPEN

    def end_trial(self, now_s: float, *, passed: bool) -> None:
        """The trial's outcome."""
        if passed:
            self._failures = 0
            self.state = CircuitState.CLOSED
        else:
            self._open(now_s)

    def _open(self, now_s: float) -> None:
        self.state = CircuitState.OPEN
        self.trial_at_s = now_s + self._next_wait_s
        self._next_wait_s = min(2 * self._next_wait_s, self._max_retry_s)
