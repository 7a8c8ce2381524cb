"""Memory that large pictures take turns on: whoever needs more than is free waits, in the policy's order.

What a picture takes is known once its head was read, so this comes after admission and before any pixel. The order is
that of `policy.FairQueue`, and the next in line is passed by nobody: it gets what it needs as soon as those before it
are done, however large it is. What is larger than the whole budget goes alone. Waiting holds no thread.

A grant has two holders, the request and the thread that works for it. It is given back when both have let go, for a
thread goes on with its pixels for a while after its caller has left or the deadline has passed.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count

from ferserve.serving.errors import DeadlineError, NotReadyError, OverloadedError
from ferserve.serving.policy import FairQueue
from ferserve.serving.rate import ServiceRate, within_bounds
from ferserve.serving.requests import Priority
from ferserve.serving.round_robin import Job


class Grant:
    """Memory that may be used until every holder has let go. Safe for several threads.

    Args:
        size_bytes: how much.
        give_back: called once, on the thread of the last holder.
    """

    def __init__(self, size_bytes: int, give_back: Callable[[], None]) -> None:
        self.size_bytes = size_bytes
        self._give_back = give_back
        self._lock = threading.Lock()
        self._holders = 1

    def join(self) -> bool:
        """Hold it too; False if it was given back already."""
        with self._lock:
            if self._holders == 0:
                return False
            self._holders += 1
            return True

    def let_go(self) -> None:
        """Hold it no more."""
        with self._lock:
            self._holders -= 1
            is_last = self._holders == 0
        if is_last:
            self._give_back()


@dataclass(frozen=True, slots=True)
class _Waiter:
    job: Job
    size_bytes: int  # as it counts, at most the whole budget
    granted: "asyncio.Future[None]"

    @property
    def has_grant(self) -> bool:
        return self.granted.done() and not self.granted.cancelled() and self.granted.exception() is None


class MemoryBudget:
    """Bytes for large pictures. All but what a `Grant` does belongs to one event loop.

    Args:
        limit_bytes: of all grants together, but for one that is larger by itself; at least 1.
        bulk_share: of the turns, as in `BatchPolicyConfig`.
        clock: seconds, rising, at the rate of the event loop's.
    """

    def __init__(self, limit_bytes: int, *, bulk_share: float, clock: Callable[[], float]) -> None:
        self.limit_bytes = limit_bytes
        self._clock = clock
        self._queue = FairQueue(max_jobs=1, bulk_share=bulk_share, quantum=1)
        self._ids = count()
        self._waiting: dict[int, _Waiter] = {}
        self._next: _Waiter | None = None  # out of the queue, and first in line whoever comes
        self._used_bytes = 0
        self._rate = ServiceRate()
        self._is_open = True

    @property
    def used_bytes(self) -> int:
        """Granted and not given back yet, a grant that goes alone counted as the whole budget."""
        return self._used_bytes

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def take(self, size_bytes: int, *, flow: str, priority: Priority, deadline_s: float) -> Grant:
        """Wait for so many bytes; whoever gets them lets go of them in a `finally`.

        Args:
            size_bytes: more than `limit_bytes` waits until nobody else has any, and keeps the others waiting.
            flow: the request, the unit of fairness.
            deadline_s: reading of the clock after which nobody waits.
        Raises:
            OverloadedError: those before it take longer than the deadline leaves; says when to come back.
            DeadlineError: the deadline came first.
            NotReadyError: closed.
        """
        if not self._is_open:
            raise _shut_down()
        now_s = self._clock()
        counted_bytes = min(size_bytes, self.limit_bytes)
        self._check_time(counted_bytes, priority, deadline_s - now_s)
        # Its place was promised by admission.
        job = Job(
            job_id=next(self._ids), flow=flow, priority=priority, deadline_s=deadline_s, enqueued_s=now_s, admitted=True
        )
        waiter = _Waiter(job, counted_bytes, asyncio.get_running_loop().create_future())
        self._waiting[job.job_id] = waiter
        self._queue.offer(job)
        self._grant()
        try:
            async with asyncio.timeout(deadline_s - now_s):
                await waiter.granted
        except BaseException as error:
            self._withdraw(waiter)
            if isinstance(error, TimeoutError):
                raise DeadlineError("the deadline passed before there was memory for the picture") from None
            raise
        free_later = partial(asyncio.get_running_loop().call_soon_threadsafe, self._free, counted_bytes)
        return Grant(size_bytes, partial(_unless_closed, free_later))

    def close(self) -> None:
        """Whoever waits gets NotReadyError."""
        self._is_open = False
        for waiter in self._waiting.values():
            if not waiter.granted.done():
                waiter.granted.set_exception(_shut_down())

    def _check_time(self, size_bytes: int, priority: Priority, left_s: float) -> None:
        before = [waiter.size_bytes for waiter in self._waiting.values() if waiter.job.priority <= priority]
        if not before and self._used_bytes + size_bytes <= self.limit_bytes:
            return
        if left_s <= 0:
            raise DeadlineError("the deadline passed before there was memory for the picture")
        needed_s = self._rate.retry_after_s(self._used_bytes + sum(before) + size_bytes)
        if needed_s > left_s:
            raise OverloadedError(
                f"no memory for more large pictures ({priority.name.lower()}): {len(before)} wait for it already, and "
                f"the deadline is in {left_s:.1f} s",
                retry_after_s=within_bounds(needed_s - left_s),
            )

    def _grant(self) -> None:
        """Serve those in line for whom there is enough."""
        while (first := self._first_in_line()) and self._used_bytes + first.size_bytes <= self.limit_bytes:
            self._next = None
            del self._waiting[first.job.job_id]
            self._used_bytes += first.size_bytes
            self._rate.work_began(self._clock())
            first.granted.set_result(None)

    def _first_in_line(self) -> _Waiter | None:
        while self._next is None or self._next.granted.done():
            # What expired is out of the queue, and its own timer tells its caller.
            jobs = self._queue.take(self._clock(), 1).jobs
            if not jobs:
                self._next = None
                return None
            self._next = self._waiting[jobs[0].job_id]
        return self._next

    def _withdraw(self, waiter: _Waiter) -> None:
        """Nobody waits for it any more, whether it was granted in the meantime or not."""
        if waiter.has_grant:
            self._free(waiter.size_bytes)
            return
        self._waiting.pop(waiter.job.job_id, None)
        self._queue.cancel(waiter.job.job_id)
        self._grant()

    def _free(self, size_bytes: int) -> None:
        self._used_bytes -= size_bytes
        self._rate.finished(size_bytes, self._clock())
        if self._used_bytes == 0:
            self._rate.work_ended()
        self._grant()


def _unless_closed(free_later: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
        free_later()


def _shut_down() -> NotReadyError:
    return NotReadyError("shut down before the answer was there")
