"""What both protocols tell whoever counts requests."""

from typing import Protocol

from ferserve.faces.errors import Reason


class RequestObserver(Protocol):
    """Is told about requests; must not raise and must not block."""

    def request_done(self, method: str, reason: Reason | None, duration_s: float) -> None:
        """One request was answered.

        Args:
            method: name of the RPC or the route's template, never a path as it came.
            reason: why it failed; None for success.
        """
