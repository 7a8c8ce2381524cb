"""What the protocols tell whoever counts or logs requests."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ferserve.faces.errors import Reason

logger = logging.getLogger(__name__)


class RequestObserver(Protocol):
    """Is told about requests; must not raise and must not block."""

    def request_done(self, method: str, reason: Reason | None, duration_s: float) -> None:
        """One request was answered.

        Args:
            method: name of the RPC or the route's template, never a path as it came.
            reason: why it failed; None for success.
        """

    def encoded(self, duration_s: float) -> None:
        """Writing one answer in its protocol's form took so long."""


class LoggedRequests:
    """Writes one record a request, and passes everything on. What a request asked or got is not in it."""

    def __init__(self, observer: RequestObserver) -> None:
        self._observer = observer

    def request_done(self, method: str, reason: Reason | None, duration_s: float) -> None:
        """One request was answered."""
        self._observer.request_done(method, reason, duration_s)
        code = "OK" if reason is None else reason.value
        logger.info("answered", extra={"method": method, "code": code, "duration_ms": round(duration_s * 1000, 1)})

    def encoded(self, duration_s: float) -> None:
        """Writing one answer in its protocol's form took so long."""
        self._observer.encoded(duration_s)


@contextmanager
def encoding(observer: RequestObserver) -> Iterator[None]:
    """Time the block as the writing of one answer."""
    began_s = time.perf_counter()
    yield
    observer.encoded(time.perf_counter() - began_s)
