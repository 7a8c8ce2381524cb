"""Threads that photos have turns on, in the order in which faces have turns on a worker.

Detection is the dearest part of a request, so photos wait for a thread as faces wait for the worker: the stage is a
dispatcher over the same policy, with one photo to a batch. A folder of bulk photos therefore does not stand between a
selfie and its detection.

Nor does a crowd. A photo's work comes in steps (see `preparer`); when it has had its thread for a turn's length and
others wait, it is parked after the step and gets back in line, behind one turn of everybody else. A parked photo keeps
its pixels, so there are half as many places to park as threads, at least one: with none free it goes on.

Decoding is granted `FREE_BYTES` on every thread. A picture that takes more says so before it takes anything; it gives
its thread back, waits for that much of the `MemoryBudget`, and has another turn (docs/adr/0012-memory.md).
"""

import asyncio
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, Generic, TypeVar, cast

from ferserve.faces.decode_memory import MemoryNeededError
from ferserve.serving.allocator import return_unused_pages
from ferserve.serving.dispatch import Dispatcher, DispatchObserver, Outcome
from ferserve.serving.errors import CallCancelledError
from ferserve.serving.latency import LatencyModel
from ferserve.serving.memory_budget import Grant, MemoryBudget
from ferserve.serving.policy import FairQueue
from ferserve.serving.preparer import FREE_BYTES, Caller, Steps
from ferserve.serving.requests import Priority

ResultT = TypeVar("ResultT")

_PHOTOS_A_TURN: Final = 1
"""Turns of one request in a row before another request has its turn."""


class PreparationStage:
    """Runs the steps of photos on threads.

    Who enters was admitted, so nothing is refused here but what would wait for memory past its deadline.

    Args:
        executor: at least `slots` threads.
        slots: photos side by side.
        bulk_share: as in `BatchPolicyConfig`.
        turn_s: how long a photo has its thread while others wait.
        memory: for pictures that take more than `FREE_BYTES`; nobody else's.
        clock: seconds, rising, at the rate of the event loop's; read on threads too.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        slots: int,
        bulk_share: float,
        turn_s: float,
        memory: MemoryBudget,
        observer: DispatchObserver,
        clock: Callable[[], float],
    ) -> None:
        self._executor = executor
        self._turn_s = turn_s
        self._memory = memory
        self._clock = clock
        self._parking = threading.Semaphore(max(1, slots // 2))
        self._dispatcher: Dispatcher[Callable[[], object], object] = Dispatcher(
            self._on_thread,
            FairQueue(max_jobs=slots, bulk_share=bulk_share, quantum=_PHOTOS_A_TURN),
            slots=slots,
            batch_size=lambda _waiting, _idle: 1,
            latency=LatencyModel(outliers=False),
            observer=observer,
            clock=clock,
        )

    async def run(
        self, work: Callable[[Caller], Steps[ResultT]], *, flow: str, priority: Priority, deadline_s: float
    ) -> Outcome[ResultT]:
        """Run `work` on threads when its turns come; with more memory, and from the start, if it asks for that.

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
        while True:
            grant = await self._memory.take(needed_bytes, flow=flow, priority=priority, deadline_s=deadline_s)
            waited_s = self._clock() - began_s
            try:
                outcome = await turns(grant)
                return replace(outcome, queued_s=waited_s + outcome.queued_s)
            except MemoryNeededError as error:  # its head did not announce all of it
                needed_bytes = error.needed_bytes
            finally:
                grant.let_go()

    def expected_s(self, *, flow: str, priority: Priority) -> float:
        """Seconds until a turn that came in now would be over; 0 while a thread is idle."""
        return self._dispatcher.expected_s(1, flow=flow, priority=priority)

    async def close(self) -> None:
        """Stop at once; a thread that was begun ends by itself at its next check."""
        self._memory.close()
        await self._dispatcher.close()

    async def _turns(
        self,
        work: Callable[[Caller], Steps[ResultT]],
        grant: Grant | None,
        *,
        flow: str,
        priority: Priority,
        deadline_s: float,
    ) -> Outcome[ResultT]:
        caller = Caller(deadline_s=deadline_s, granted_bytes=FREE_BYTES if grant is None else grant.size_bytes)
        photo = _Photo(_held(grant, work(caller)), caller, self._parking, self._clock)
        turn = partial(photo.have_turn, self._is_over)
        queued_s = run_s = 0.0
        try:
            while True:
                (future,) = self._dispatcher.submit(
                    [turn], flow=flow, priority=priority, deadline_s=deadline_s, admitted=True
                )
                outcome = await future
                queued_s, run_s = queued_s + outcome.queued_s, run_s + outcome.run_s
                if not isinstance(outcome.value, _Parked):
                    # The dispatcher carries any kind of work; that it gives back what this work returns only this
                    # line knows.
                    return Outcome(value=cast("ResultT", outcome.value), queued_s=queued_s, run_s=run_s)
        finally:
            photo.abandon()

    def _is_over(self, taken_s: float) -> bool:
        """Whether a turn that has taken so long is to end; asked on its thread."""
        return self._dispatcher.waiting > 0 and taken_s >= self._turn_s

    async def _on_thread(self, turns: list[Callable[[], object]], _left_s: float) -> list[object]:
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._executor, turn) for turn in turns]


class _Parked:
    """What a turn gives that ended before its photo was done."""


PARKED: Final = _Parked()


class _Photo(Generic[ResultT]):
    """One photo's steps. Its turns follow each other; `abandon` comes from the event loop at any time.

    Args:
        parking: a place for each photo that may wait half done.
    """

    def __init__(
        self,
        steps: Steps[ResultT],
        caller: Caller,
        parking: threading.Semaphore,
        clock: Callable[[], float],
    ) -> None:
        self._steps = steps
        self._caller = caller
        self._parking = parking
        self._clock = clock
        self._is_parked = False
        self._between_steps = threading.Lock()

    def have_turn(self, is_over: Callable[[float], bool]) -> ResultT | _Parked:
        """Go on until the photo is done or the turn is over; on a thread.

        Args:
            is_over: told for how many seconds the turn has gone on.
        Raises:
            CallCancelledError: the caller left.
        """
        began_s = self._clock()
        with self._between_steps:
            self._leave_parking()
        while True:
            try:
                next(self._steps)
            except StopIteration as done:
                result: ResultT = done.value
                return result
            with self._between_steps:
                if self._caller.has_left:
                    self._steps.close()
                    raise CallCancelledError("the caller left")
                if is_over(self._clock() - began_s) and self._parking.acquire(blocking=False):
                    self._is_parked = True
                    return PARKED

    def abandon(self) -> None:
        """Nobody waits for it any more; what it holds is let go of now, or by its thread after this step."""
        with self._between_steps:
            self._caller.has_left = True
            self._leave_parking()
            with suppress(ValueError):  # a thread is in the middle of a step
                self._steps.close()

    def _leave_parking(self) -> None:
        if self._is_parked:
            self._is_parked = False
            self._parking.release()


def _held(grant: Grant | None, steps: Steps[ResultT]) -> Steps[ResultT]:
    """Work that holds its memory from its first step to its end, also for a caller who has left."""
    if grant is not None and not grant.join():
        raise CallCancelledError("the caller left")
    try:
        return (yield from steps)
    except BaseException as error:
        _let_go_of_pixels(error)
        raise
    finally:
        if grant is not None:
            return_unused_pages()  # before somebody else has this much
            grant.let_go()


def _let_go_of_pixels(error: BaseException) -> None:
    """An error lives until it is answered; without this the frames that it passed through would keep their pictures."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
