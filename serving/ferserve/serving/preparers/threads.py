"""Photos' steps on threads of this process."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors import Detector
from ferserve.serving.allocator import return_unused_pages
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.errors import CallCancelledError
from ferserve.serving.memory_budget import Grant
from ferserve.serving.preparer import FREE_BYTES, Caller, Preparer, Steps, Work
from ferserve.serving.preparers.protocol import Parked
from ferserve.serving.preparers.turns import Turns, ending_with

ResultT = TypeVar("ResultT")


class ThreadSite:
    """Takes steps on the threads of an executor. There are half as many places to park as threads, at least one.

    Args:
        executor: at least `slots` threads; not shut down here.
        preparer: called on all of them at once.
        detector: the name of its detector.
        slots: photos side by side.
        turn_s: how long a photo has its thread while others wait.
        clock: seconds, rising; read on the threads.
    """

    def __init__(
        self,
        executor: Executor,
        preparer: Preparer,
        *,
        detector: str,
        slots: int,
        turn_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.slots = slots
        self.detector = detector
        self._executor = executor
        self._preparer = preparer
        self._turn_s = turn_s
        self._clock = clock
        self._parking = threading.Semaphore(max(1, slots // 2))
        self._others_wait = False

    def photo(self, work: Work[ResultT], *, deadline_s: float, grant: Grant | None) -> "ThreadPhoto[ResultT]":
        """A photo whose first turn is still to come; see `PreparationSite`."""
        caller = Caller(deadline_s=deadline_s, granted_bytes=FREE_BYTES if grant is None else grant.size_bytes)
        steps = _held(grant, work.steps(self._preparer, caller))
        return ThreadPhoto(Turns(steps, caller, self._parking, self._clock), self._executor, self._is_over)

    def others_wait(self, they_do: bool) -> None:  # noqa: FBT001 -- the one thing that it says
        """Whether a turn that has lasted its time is to end, from now on."""
        self._others_wait = they_do

    async def close(self) -> None:
        """Nothing to do: a thread that was begun ends by itself at its next check."""

    def _is_over(self, taken_s: float) -> bool:
        """Whether a turn that has taken so long is to end; asked on its thread."""
        return self._others_wait and taken_s >= self._turn_s


class ThreadPhoto(Generic[ResultT]):
    """One photo's turns, each on the next thread that is free."""

    def __init__(self, turns: Turns[ResultT], executor: Executor, is_over: Callable[[float], bool]) -> None:
        self._turns = turns
        self._executor = executor
        self._is_over = is_over

    async def have_turn(self) -> ResultT | Parked:
        """Go on until the photo is done or the turn is over."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._turns.have_turn, self._is_over)

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        self._turns.abandon()


def thread_site(
    executor: Executor, detector: Detector, config: AnalyzerConfig, *, limits: DecodeLimits, clock: Callable[[], float]
) -> ThreadSite:
    """A site on at least `config.threads` threads, with a preparer of its own.

    Args:
        detector: called from several threads at once.
        clock: seconds, rising; read on the threads.
    """
    return ThreadSite(
        executor,
        Preparer(detector, limits, clock, max_decode_bytes=config.max_decode_bytes),
        detector=detector.name,
        slots=config.threads,
        turn_s=config.turn_ms / 1000,
        clock=clock,
    )


def _held(grant: Grant | None, steps: Steps[ResultT]) -> Steps[ResultT]:
    """Work that holds its memory from its first step to its end, also for a caller who has left."""
    if grant is None:
        return (yield from ending_with(steps, None))
    if not grant.join():
        raise CallCancelledError("the caller left")

    def give_back() -> None:
        return_unused_pages()  # before somebody else has this much
        grant.let_go()

    return (yield from ending_with(steps, give_back))
