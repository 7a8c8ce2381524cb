"""What the protocols tell whoever counts or logs requests."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ferserve.faces.errors import Reason

logger = logging.getLogger(__name__)


class StreamObserver(Protocol):
    """Is told about frames; must not raise and must not block."""

    def stream_opened(self) -> None:
        """A stream began."""

    def stream_closed(self) -> None:
        """A stream ended, however it did."""

    def frame_done(self, reason: Reason | None) -> None:
        """One frame of a stream was answered; the reason if it was with an error."""

    def frames_dropped(self, frames: int) -> None:
        """So many frames of a live stream were given up for newer ones."""


class RequestObserver(StreamObserver, Protocol):
    """Is told about requests; must not raise and must not block."""

    def request_done(self, method: str, reason: Reason | None, duration_s: float) -> None:
        """One request was answered.

        Args:
            method: name of the RPC or the route's template, never a path as it came.
            reason: why it failed; None for success.
        """

    def encoded(self, duration_s: float) -> None:
        """Writing one answer in its protocol's form took so long."""


class ForwardedRequests:
    """Passes everything on; what wraps an observer overrides what it adds to."""

    def __init__(self, observer: RequestObserver) -> None:
        self._observer = observer

    def request_done(self, method: str, reason: Reason | None, duration_s: float) -> None:
        """One request was answered."""
        self._observer.request_done(method, reason, duration_s)

    def encoded(self, duration_s: float) -> None:
        """Writing one answer in its protocol's form took so long."""
        self._observer.encoded(duration_s)

    def stream_opened(self) -> None:
        """A stream began."""
        self._observer.stream_opened()

    def stream_closed(self) -> None:
        """A stream ended, however it did."""
        self._observer.stream_closed()

    def frame_done(self, reason: Reason | None) -> None:
        """One frame of a stream was answered; nothing but its count is told of it."""
        self._observer.frame_done(reason)

    def frames_dropped(self, frames: int) -> None:
        """So many frames of a live stream were given up for newer ones."""
        self._observer.frames_dropped(frames)


class LoggedRequests(ForwardedRequests):
    """Writes one record a request. What a request asked or got is not in it."""

    def request_done(self, method: str, reason: Reason | None, duration_s: float) -> None:
        """One request was answered."""
        super().request_done(method, reason, duration_s)
        code = "OK" if reason is None else reason.value
        logger.info("answered", extra={"method": method, "code": code, "duration_ms": round(duration_s * 1000, 1)})


@contextmanager
def encoding(observer: RequestObserver) -> Iterator[None]:
    """Time the block as the writing of one answer."""
    began_s = time.perf_counter()
    yield
    observer.encoded(time.perf_counter() - began_s)
