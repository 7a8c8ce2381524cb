"""CPU cores in virtual time: who computes, and how long it takes beside the others."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

_DONE_S: Final = 1e-9


class Cores:
    """CPU cores. Urgent work goes first, all other work shares evenly what that leaves, nothing has more than one.

    Args:
        clock: of the event loop.
        crowding, unevenness: as in `GatewayModel`.
    """

    def __init__(
        self, cores: float, clock: Callable[[], float], crowding: float = 1.0, unevenness: float = 0.0
    ) -> None:
        self._cores = cores
        self._crowding = crowding
        self._unevenness = unevenness
        self._clock = clock
        self._urgent: dict[asyncio.Future[None], float] = {}
        self._left: dict[asyncio.Future[None], float] = {}
        self._as_of_s = clock()
        self._timer: asyncio.TimerHandle | None = None
        self.used_s = 0.0

    async def compute(self, work_s: float, *, urgent: bool = False) -> None:
        """Wait for so much work on one core. Work that was begun is done even if nobody waits for it any more."""
        if not work_s:
            return
        self._advance()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._urgent if urgent else self._left)[done] = work_s
        self._set_timer()
        await done

    def _advance(self) -> None:
        """Count what was done since the last time."""
        now_s, as_of_s = self._clock(), self._as_of_s
        self._as_of_s = now_s
        for works, speed in self._with_speeds():
            for done in works:
                works[done] -= (now_s - as_of_s) * speed
        self.used_s += (now_s - as_of_s) * self._used(len(self._urgent) + len(self._left))

    def _used(self, at_work: int) -> float:
        """How many cores so many threads are on.

        An operating system has a queue for each core and moves threads between them now and then, so two may share one
        beside another that is idle. Were they thrown at random, n on c cores would leave c * (1 - 1/c)**n idle. More
        threads than cores keep all of them at work: one that runs out takes what waits elsewhere.
        """
        even = min(self._cores, at_work)
        if not 1 < at_work <= math.ceil(self._cores):
            return even
        thrown = self._cores * (1 - (1 - 1 / self._cores) ** at_work)
        return even - self._unevenness * max(even - thrown, 0.0)

    def _with_speeds(self) -> list[tuple[dict[asyncio.Future[None], float], float]]:
        """Urgent work and the rest, and how fast each of theirs goes on; 1 is alone on a core."""
        at_work = len(self._urgent) + len(self._left)
        slower = self._crowding if at_work > self._cores else 1.0
        used = self._used(at_work)
        first = min(1.0, used / max(len(self._urgent), 1))
        left_over = used - first * len(self._urgent)
        rest = min(1.0, left_over / max(len(self._left), 1))
        return [(self._urgent, first / slower), (self._left, rest / slower)]

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ends_s = [
            max(left_s, 0.0) / speed for works, speed in self._with_speeds() if speed > 0 for left_s in works.values()
        ]
        if ends_s:
            self._timer = asyncio.get_running_loop().call_later(min(ends_s), self._finish)

    def _finish(self) -> None:
        self._advance()
        for works in (self._urgent, self._left):
            for done in [done for done, left_s in works.items() if left_s <= _DONE_S]:
                del works[done]
                if not done.done():
                    done.set_result(None)
        self._set_timer()


class UrgentThread:
    """One thread whose work goes first, in the order in which it comes."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self._turn = asyncio.Lock()

    async def compute(self, work_s: float) -> None:
        """Wait for what came before and for so much work."""
        async with self._turn:
            await self._cores.compute(work_s, urgent=True)
