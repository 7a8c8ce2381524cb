"""What the protocols tell whoever counts requests."""

from typing import Protocol

from ferserve.faces.errors import Reason


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
