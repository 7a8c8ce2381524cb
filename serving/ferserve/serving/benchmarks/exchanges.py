"""What became of each request that was offered."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ferserve.faces.errors import FerserveError, Reason
from ferserve.serving.benchmarks.estimates import Samples


class Ending(StrEnum):
    """How a request ended."""

    OK = "ok"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    EXPIRED = "expired"
    FAILED = "failed"


_ENDINGS = {
    Reason.OVERLOADED: Ending.REFUSED,
    Reason.RATE_LIMITED: Ending.REFUSED,
    Reason.NOT_READY: Ending.UNAVAILABLE,
    Reason.DEADLINE: Ending.EXPIRED,
}


def ending_of(error: FerserveError) -> Ending:
    """The ending that a failed call is."""
    return _ENDINGS.get(error.reason, Ending.FAILED)


def ending_of_reason(reason: str) -> Ending:
    """The ending that an error with this reason is; also of reasons that this version does not know."""
    return next((ending for known, ending in _ENDINGS.items() if known == reason), Ending.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one request.

    Attributes:
        retry_after_s: when the gateway said to come back; None where it said nothing.
    """

    ending: Ending
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and its answer; times are seconds since the load began.

    Attributes:
        stream: which of the offered streams it belongs to.
        due_s: when it was to be sent.
        sent_s: when it was sent; later than `due_s` only by the generator's own delay.
        done_s: when its answer was there.
        timeout_s: its deadline, counted from `sent_s`.
        retry_after_s: when the gateway said to come back; None where it said nothing.
        faces: that were scored if it ended well; 0 where that is not known.
    """

    stream: str
    due_s: float
    sent_s: float
    done_s: float
    timeout_s: float
    ending: Ending
    retry_after_s: float | None = None
    faces: int = 0

    @property
    def latency_ms(self) -> float:
        """From the moment it was due, so that a delay of the generator is not hidden."""
        return (self.done_s - self.due_s) * 1000

    @property
    def lag_ms(self) -> float:
        """The generator's own delay."""
        return (self.sent_s - self.due_s) * 1000

    @property
    def is_late(self) -> bool:
        """Answered with scores although its deadline had passed."""
        return self.ending is Ending.OK and self.done_s - self.sent_s > self.timeout_s

    @property
    def is_in_time(self) -> bool:
        """Answered with scores before its deadline."""
        return self.ending is Ending.OK and not self.is_late

    @property
    def is_told(self) -> bool:
        """Refused in so many words: by the gateway itself, and with a time to come back."""
        return self.ending in (Ending.REFUSED, Ending.UNAVAILABLE) and self.retry_after_s is not None


def blocks_by_time(
    exchanges: Iterable[Exchange],
    value: Callable[[Exchange], float],
    *,
    when: Callable[[Exchange], float],
    begin_s: float,
    end_s: float,
    block_s: float,
) -> list[Samples]:
    """One value an exchange, in blocks of time.

    Args:
        when: the exchange's time; those outside [begin_s, end_s) are left out.
        block_s: length of one block; a last shorter one is left out.
    """
    blocks: list[list[float]] = [[] for _ in range(int((end_s - begin_s) / block_s + 1e-9))]
    for exchange in exchanges:
        index = int((when(exchange) - begin_s) // block_s)
        if 0 <= index < len(blocks):
            blocks[index].append(value(exchange))
    return [np.array(block) for block in blocks]
