"""The turns of photos, in the order in which faces have turns on a worker.

Detection is the dearest part of a request, so photos wait for it as faces wait for the worker: the stage is a
dispatcher over the same policy, with one photo to a batch. A folder of bulk photos therefore does not stand between a
selfie and its detection.

Nor does a crowd. A photo's work comes in steps (see `preparer`), which a `PreparationSite` takes, on threads or in
processes. When a photo has had a turn's length and others wait, it is parked after the step and gets back in line,
behind one turn of everybody else. A parked photo keeps its pixels, so there are few places to park: with none free it
goes on.

Decoding is granted `FREE_BYTES` everywhere. A picture that takes more says so before it takes anything; it gives
its place back, waits for that much of the `MemoryBudget`, and has another turn (docs/adr/0012-memory.md).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar, cast

from ferserve.faces.decode_memory import MemoryNeededError
from ferserve.serving.crowd_limit import CrowdLimit
from ferserve.serving.dispatch import Dispatcher
from ferserve.serving.latency import LatencyModel
from ferserve.serving.memory_budget import Grant, MemoryBudget
from ferserve.serving.outcomes import DispatchObserver, Outcome
from ferserve.serving.policy import FairQueue
from ferserve.serving.preparer import Work
from ferserve.serving.preparers.protocol import Parked, Photo, PreparationSite
from ferserve.serving.requests import Priority

ResultT = TypeVar("ResultT")

_PHOTOS_A_TURN: Final = 1
"""Turns of one request in a row before another request has its turn."""


class PreparationStage:
    """Gives photos their turns where their steps are taken.

    Who enters was admitted, so nothing is refused here but what would wait for memory past its deadline.

    Args:
        site: takes the steps; nobody else's, but closed by whoever made it.
        bulk_share: as in `BatchPolicyConfig`.
        memory: for pictures that take more than `FREE_BYTES`; nobody else's.
        clock: seconds, rising, at the rate of the event loop's.
        limit: of crowds, where others compute on the same cores; by default there are as many as slots, and no others.
    """

    def __init__(
        self,
        site: PreparationSite,
        *,
        bulk_share: float,
        memory: MemoryBudget,
        observer: DispatchObserver,
        clock: Callable[[], float],
        limit: CrowdLimit | None = None,
    ) -> None:
        self._site = site
        self._memory = memory
        self._clock = clock
        self._limit = limit or CrowdLimit(site.slots, clock)
        self._photos_wait = False
        self._dispatcher: Dispatcher[Photo[object], object] = Dispatcher(
            _one_turn,
            FairQueue(max_jobs=site.slots, bulk_share=bulk_share, quantum=_PHOTOS_A_TURN),
            slots=site.slots,
            batch_size=lambda _waiting, _idle: 1,
            latency=LatencyModel(outliers=False),
            observer=_SeenQueue(observer, self._queued),
            clock=clock,
            limit=self._limit,
        )
        self._limit.watch(self._tell_site)

    async def run(self, work: Work[ResultT], *, flow: str, priority: Priority, deadline_s: float) -> Outcome[ResultT]:
        """Have `work` done when its turns come; with more memory, and from the start, if it asks for that.

        Raises:
            OverloadedError: there would be no memory for it before its deadline.
            DeadlineError: the deadline came first.
            NotReadyError: draining or closed.
        """
        began_s = self._clock()
        turns = partial(self._turns, work, flow=flow, priority=priority, deadline_s=deadline_s)
        try:
            return await turns(None)
        except MemoryNeededError as error:
            needed_bytes = error.needed_bytes
            error.with_traceback(None)  # which would hold the picture until the next collection of garbage
        while True:
            grant = await self._memory.take(needed_bytes, flow=flow, priority=priority, deadline_s=deadline_s)
            waited_s = self._clock() - began_s
            try:
                outcome = await turns(grant)
                return replace(outcome, queued_s=waited_s + outcome.queued_s)
            except MemoryNeededError as error:  # its head did not announce all of it
                needed_bytes = error.needed_bytes
                error.with_traceback(None)
            finally:
                grant.let_go()

    def expected_s(self, *, flow: str, priority: Priority) -> float:
        """Seconds until a turn that came in now would be over; 0 while a place is idle."""
        return self._dispatcher.expected_s(1, flow=flow, priority=priority)

    async def close(self) -> None:
        """Stop at once; what is in the middle of a step ends by itself at its next check."""
        self._memory.close()
        await self._dispatcher.close()

    async def _turns(
        self, work: Work[ResultT], grant: Grant | None, *, flow: str, priority: Priority, deadline_s: float
    ) -> Outcome[ResultT]:
        photo = self._site.photo(work, deadline_s=deadline_s, grant=grant)
        queued_s = run_s = 0.0
        submit = partial(self._dispatcher.submit, flow=flow, priority=priority, deadline_s=deadline_s, admitted=True)
        is_long = False
        try:
            while True:
                (future,) = submit([photo], is_long=is_long)
                outcome = await future
                queued_s, run_s = queued_s + outcome.queued_s, run_s + outcome.run_s
                if not isinstance(outcome.value, Parked):
                    # The dispatcher carries any kind of work; that it gives back what this work returns only this
                    # line knows.
                    return Outcome(value=cast("ResultT", outcome.value), queued_s=queued_s, run_s=run_s)
                is_long = True
        finally:
            photo.abandon()

    def _queued(self, photos: int) -> None:
        self._photos_wait = photos > 0
        self._tell_site()

    def _tell_site(self) -> None:
        """Whether a turn that has lasted its time is to end: for photos that wait, or for faces of another crowd."""
        self._site.others_wait(self._photos_wait or self._limit.is_contended(self._dispatcher))


async def _one_turn(photos: list[Photo[object]], _left_s: float) -> list[object]:
    return [await photo.have_turn() for photo in photos]


class _SeenQueue:
    """Passes on what happens to photos; how many wait is told to somebody else before."""

    def __init__(self, observer: DispatchObserver, on_queued: Callable[[int], None]) -> None:
        self._on_queued = on_queued
        self._observer = observer
        self.started = observer.started
        self.finished = observer.finished
        self.dropped = observer.dropped

    def queued(self, jobs: int) -> None:
        """So many photos wait."""
        self._on_queued(jobs)
        self._observer.queued(jobs)
