"""Photos' steps in processes of their own.

None of them waits for another's interpreter lock, nor takes it from the event loop
(docs/adr/0096-preparation-in-processes.md).

A photo stays with the process that it began in; a new one goes to the process with the least to do. A process that
dies takes its photos with it, and one of them may be why. Each of those is asked again, once, in a process that has
nothing else to do and ends with it; the photo that ends that one too is refused, and nobody else has lost more than
time.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from itertools import count
from typing import Final, Generic, Protocol, Self, TypeVar

import cv2
import numpy as np

from ferserve.faces.errors import FerserveError
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.serving.errors import CallCancelledError, NotReadyError, WorkerFailedError
from ferserve.serving.memory_budget import Grant
from ferserve.serving.preparer import PhotoWork, Work
from ferserve.serving.preparers.messages import PreparerFaultError
from ferserve.serving.preparers.nursery import Nursery
from ferserve.serving.preparers.protocol import Parked
from ferserve.serving.preparers.remote import PreparerLostError, RemotePhoto, RemotePreparer
from ferserve.serving.requests import AnalyzeOptions

ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)
PROOF_TIMEOUT_S: Final = 60.0
PROOF_PX: Final = 64
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0


class PreparersObserver(Protocol):
    """Is told how many preparers there are; must not raise and must not block."""

    def preparers(self, ready: int) -> None:
        """So many take photos now."""

    def preparer_lost(self) -> None:
        """One ended that was not told to."""

    def can_prepare(self, any_can: bool) -> None:  # noqa: FBT001 -- the one thing that it says
        """Whether one is there, or is thought to be there again in a moment; so until told otherwise."""


class ProcessSite:
    """Takes steps in processes; see `start`.

    Args:
        nursery: makes the processes; owned from now on.
        slots: how many of them there are.
    """

    def __init__(self, nursery: Nursery, *, slots: int, observer: PreparersObserver) -> None:
        self.slots = slots
        self.detector = ""
        self._nursery = nursery
        self._observer = observer
        self._numbers = count()
        self._ready: list[RemotePreparer] = []
        self._any_ready = asyncio.Event()
        self._alone = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = True

    @classmethod
    async def start(cls, nursery: Nursery, *, slots: int, observer: PreparersObserver) -> Self:
        """A site whose processes have all prepared a picture for real.

        Raises:
            FerserveError: the detector does not run, or a process.
        """
        site = cls(nursery, slots=slots, observer=observer)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(slots):
                    group.create_task(site._add())
        except* (FerserveError, PreparerLostError) as errors:
            await site.close()
            first = next(_leaves(errors))
            if isinstance(first, FerserveError):
                raise first from None
            raise WorkerFailedError("a process that prepares photos ended before it had prepared one") from None
        return site

    def photo(self, work: Work[ResultT], *, deadline_s: float, grant: Grant | None) -> "ProcessPhoto[ResultT]":
        """A photo whose first turn is still to come; see `PreparationSite`."""
        return ProcessPhoto(self, work, deadline_s, grant)

    def others_wait(self, they_do: bool) -> None:  # noqa: FBT001 -- the one thing that it says
        """Whether a turn that has lasted its time is to end, from now on."""
        self._nursery.others_wait(they_do)

    async def close(self) -> None:
        """End all processes at once."""
        self._is_open = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for preparer in self._ready:
            preparer.end()
        await self._nursery.close()

    async def begin(self, work: Work[ResultT], *, deadline_s: float, grant: Grant | None) -> RemotePhoto[ResultT]:
        """A photo that has its first turn in the process with the least to do."""
        while not self._ready:
            await self._any_ready.wait()  # the deadline ends it
        preparer = min(self._ready, key=lambda one: one.load)
        return preparer.photo(next(self._numbers), work, deadline_s=deadline_s, grant=grant)

    async def run_alone(self, work: Work[ResultT], *, deadline_s: float, grant: Grant | None) -> ResultT | Parked:
        """Do all of a photo in a process of its own, one such photo at a time.

        Raises:
            WorkerFailedError: that process ended too.
            NotReadyError: closed.
        """
        async with self._alone:
            if not self._is_open:
                raise NotReadyError("shut down before the answer was there")
            try:
                preparer = await self._nursery.fork(_nothing)
                try:
                    photo = preparer.photo(next(self._numbers), work, deadline_s=deadline_s, grant=grant, parks=False)
                    return await photo.turn()
                finally:
                    preparer.end()
            except PreparerLostError:
                raise WorkerFailedError(
                    "expected crops, but two processes that were to cut them out of this picture ended over it"
                ) from None

    async def _add(self) -> None:
        """One more process; it counts once it has prepared a picture."""
        preparer = await self._nursery.fork(self._on_lost)
        deadline_s = time.monotonic() + PROOF_TIMEOUT_S
        try:
            async with asyncio.timeout(PROOF_TIMEOUT_S):
                await preparer.photo(next(self._numbers), _proof(), deadline_s=deadline_s, grant=None).turn()
        except BaseException as error:
            preparer.end()
            if isinstance(error, PreparerFaultError | TimeoutError):
                raise WorkerFailedError("a process that prepares photos failed on a grey picture") from error
            raise
        started = preparer.started.result()
        self.detector = started.detector
        self._ready.append(preparer)
        self._any_ready.set()
        self._observer.preparers(len(self._ready))
        self._observer.can_prepare(True)

    def _on_lost(self, preparer: RemotePreparer) -> None:
        if preparer not in self._ready:
            return  # whoever was about to add it hears of it
        self._ready.remove(preparer)
        if not self._ready:
            self._any_ready.clear()
        if self._is_open:
            self._observer.preparers(len(self._ready))
            self._observer.preparer_lost()
            task = asyncio.create_task(self._replace())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _replace(self) -> None:
        """One in the place of one that was lost, however often it takes."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self._add()
            except (FerserveError, PreparerLostError) as error:
                logger.error("no process to prepare photos in the place of the last one: %s", error)  # noqa: TRY400 - its own words
            if not self._ready:
                self._observer.can_prepare(False)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


class ProcessPhoto(Generic[ResultT]):
    """One photo's turns, all in one process; where that dies, once more in another one."""

    def __init__(self, site: ProcessSite, work: Work[ResultT], deadline_s: float, grant: Grant | None) -> None:
        self._site = site
        self._work = work
        self._deadline_s = deadline_s
        self._grant = grant
        self._is_abandoned = False
        self._there: RemotePhoto[ResultT] | None = None
        self._alone: asyncio.Task[ResultT | Parked] | None = None

    async def have_turn(self) -> ResultT | Parked:
        """Go on until the photo is done or the turn is over.

        Raises:
            CallCancelledError: the caller left.
        """
        try:
            if self._there is None:
                there = await self._site.begin(self._work, deadline_s=self._deadline_s, grant=self._grant)
                self._there = there
                if self._is_abandoned:  # while no process was there
                    there.abandon()
            return await self._there.turn()
        except PreparerLostError:
            if self._is_abandoned:
                raise CallCancelledError("the caller left") from None
        return await self._turn_alone()

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        self._is_abandoned = True
        if self._alone is not None:
            self._alone.cancel()
        elif self._there is not None:
            self._there.abandon()

    async def _turn_alone(self) -> ResultT | Parked:
        alone = self._site.run_alone(self._work, deadline_s=self._deadline_s, grant=self._grant)
        self._alone = asyncio.create_task(alone)
        try:
            await asyncio.wait({self._alone})
        finally:
            self._alone.cancel()
        if self._alone.cancelled():
            raise CallCancelledError("the caller left")
        return self._alone.result()


def _nothing(_preparer: RemotePreparer) -> None:
    """Whoever waits for the photo hears of it."""


def _proof() -> PhotoWork:
    """A grey picture."""
    done, data = cv2.imencode(".png", np.full((PROOF_PX, PROOF_PX, 3), 128, dtype=np.uint8))
    assert done
    return PhotoWork(data=data.tobytes(), options=AnalyzeOptions(), spec=PreprocessSpec(size_px=PROOF_PX, channels=1))


def _leaves(errors: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
