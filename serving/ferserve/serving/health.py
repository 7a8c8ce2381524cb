"""Whether the gateway takes requests: one answer for gRPC health, `/readyz`, and the draining of a shutdown.

STARTING ── ready() ──> READY ── drain() ──> DRAINING; there is no way back. READY is replaced by
UNSERVED while no worker works, or nobody prepares photos for them; `served()` says so.

An adapter wraps each request in `accept()`, so that what was accepted is counted until its answer is out and a drain
can wait for exactly that. All calls belong to the event loop's thread.
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Final

from ferserve.serving.errors import NotReadyError

RETRY_AFTER_S: Final = 1.0
"""What a refused caller is told: by then a start is over, or another gateway has taken this one's place."""


class HealthState(StrEnum):
    """Where in its life the gateway is."""

    STARTING = "starting"
    READY = "ready"
    UNSERVED = "without a worker, or without a process that prepares photos"
    DRAINING = "draining"


class Health:
    """The gateway's state and the number of requests it has accepted and not answered yet."""

    def __init__(self) -> None:
        self._state = HealthState.STARTING
        self._served = True
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._listeners: list[Callable[[HealthState], None]] = []

    @property
    def state(self) -> HealthState:
        """Where in its life the gateway is."""
        return self._state

    @property
    def is_ready(self) -> bool:
        """True while new requests are taken."""
        return self._state is HealthState.READY

    @property
    def in_flight(self) -> int:
        """Requests accepted and not answered yet."""
        return self._in_flight

    def subscribe(self, listener: Callable[[HealthState], None]) -> None:
        """Call `listener` with the present state now, and with the new one at every change."""
        self._listeners.append(listener)
        listener(self._state)

    def ready(self) -> None:
        """Take requests from now on; only a starting gateway can become ready."""
        if self._state is HealthState.STARTING:
            self._change(HealthState.READY if self._served else HealthState.UNSERVED)

    def served(self, any_works: bool) -> None:  # noqa: FBT001 -- the one thing that it says
        """Whether some worker works; taken to be so until told otherwise."""
        self._served = any_works
        state = HealthState.READY if any_works else HealthState.UNSERVED
        if self._state in {HealthState.READY, HealthState.UNSERVED} and self._state is not state:
            self._change(state)

    def drain(self) -> None:
        """Refuse new requests from now on; those accepted go on."""
        if self._state is not HealthState.DRAINING:
            self._change(HealthState.DRAINING)

    def accept(self) -> "Accepted":
        """Hold one request as accepted until its answer is out, as a `with` block.

        Raises:
            NotReadyError: as the block begins; the gateway is starting, draining or without a worker.
        """
        return Accepted(self)

    def check_ready(self) -> None:
        """Raise NotReadyError unless new requests are taken."""
        if self._state is not HealthState.READY:
            raise NotReadyError(f"the gateway takes no new requests: it is {self._state}", retry_after_s=RETRY_AFTER_S)

    def _begin(self) -> None:
        self.check_ready()
        self._in_flight += 1
        self._idle.clear()

    def _end(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()

    async def drained(self, timeout_s: float) -> bool:
        """Wait until every accepted request is answered.

        Returns:
            True when none is left, False when `timeout_s` seconds were not enough.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _change(self, state: HealthState) -> None:
        self._state = state
        for listener in self._listeners:
            listener(state)


class Accepted:
    """One request in flight; see `Health.accept`. No generator: every request passes through several of these."""

    __slots__ = ("_health",)

    def __init__(self, health: Health) -> None:
        self._health = health

    def __enter__(self) -> None:
        self._health._begin()  # noqa: SLF001 -- the two halves of one object

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._health._end()  # noqa: SLF001 -- the two halves of one object
