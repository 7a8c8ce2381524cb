"""One preparer's process as the gateway sees it: its photos, what it said of each, and whether it is still there."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Generic, TypeVar, cast

from ferserve.faces.errors import FerserveError
from ferserve.serving.allocator import return_unused_pages
from ferserve.serving.errors import CallCancelledError
from ferserve.serving.memory_budget import Grant
from ferserve.serving.preparer import FREE_BYTES, Work
from ferserve.serving.preparers.messages import Abandon, Begin, Frames, GoOn, Said, Started, frame
from ferserve.serving.preparers.protocol import Parked

ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)
SILENCE_S: Final = 30.0
"""So long may a step take whose caller has left; after that the process is ended, for nothing else ends such a step."""


class PreparerLostError(Exception):
    """The process ended, or was ended, before the photo was done; another one may do it. Never shown to a caller."""

    def __init__(self) -> None:
        super().__init__("the process ended before it was done")


class RemotePreparer(asyncio.Protocol):
    """One process's end of the talk. All of it belongs to one event loop.

    Args:
        number: its name among all that were forked.
        kill: ends the process.
        on_lost: told once, when the process is gone.
    """

    def __init__(
        self, number: int, *, kill: Callable[[int], None], on_lost: Callable[["RemotePreparer"], None]
    ) -> None:
        self.number = number
        self.started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self.photos: dict[int, RemotePhoto[object]] = {}
        self._kill = kill
        self._on_lost = on_lost
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._is_lost = False
        self.was_told_to_end = False

    @property
    def pid(self) -> int | None:
        """Of the process; None as long as it has not said that it is there."""
        said = self.started.done() and not self.started.cancelled() and self.started.exception() is None
        return self.started.result().pid if said else None

    @property
    def load(self) -> tuple[bool, int, int]:
        """The lower, the sooner a new photo begins: whether steps go on for nobody, turns under way, photos parked."""
        photos = self.photos.values()
        parked = sum(photo.is_parked for photo in photos)
        return any(photo.is_abandoned for photo in photos), len(photos) - parked, parked

    def photo(
        self, number: int, work: Work[ResultT], *, deadline_s: float, grant: Grant | None, parks: bool = True
    ) -> "RemotePhoto[ResultT]":
        """A photo that has its first turn now; see `PreparationSite.photo`.

        Args:
            number: no other photo's.
            parks: whether its turns may end before it is done.
        Raises:
            PreparerLostError: the process has ended.
        """
        granted_bytes = FREE_BYTES if grant is None else grant.size_bytes
        photo = RemotePhoto[ResultT](self, number, grant)
        photo.begin(Begin(number, work, deadline_s, granted_bytes, parks))
        return photo

    def send(self, message: object) -> None:
        """Send a message.

        Raises:
            PreparerLostError: the process has ended.
        """
        if self._transport is None or self._is_lost:
            raise PreparerLostError
        self._transport.writelines(frame(message))

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.was_told_to_end = True
        self._kill(self.number)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """By the loop."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """By the loop."""
        for message in self._frames.messages(data):
            match message:
                case Said():
                    photo = self.photos.get(message.photo)
                    if photo is not None:
                        photo.said(message.outcome)
                case Started():
                    self.started.set_result(message)
                case FerserveError():
                    self.started.set_exception(message)

    def connection_lost(self, error: Exception | None) -> None:
        """By the loop."""
        del error  # the process ended; how is said by whoever buries it
        self._is_lost = True
        if not self.started.done():
            self.started.set_exception(PreparerLostError())
        for photo in list(self.photos.values()):
            photo.lost()
        self._on_lost(self)


class RemotePhoto(Generic[ResultT]):
    """One photo in one process, from its first turn to the last word about it."""

    def __init__(self, preparer: RemotePreparer, number: int, grant: Grant | None) -> None:
        self.is_parked = False
        self.is_abandoned = False
        self._preparer = preparer
        self._number = number
        self._grant = grant
        self._turn: asyncio.Future[ResultT | Parked] | None = None
        self._silence: asyncio.TimerHandle | None = None

    def begin(self, message: Begin) -> None:
        """Send it; what is granted is held from now to the last word."""
        self._preparer.send(message)
        if self._grant is not None:
            self._grant.join()
        self._preparer.photos[self._number] = cast("RemotePhoto[object]", self)
        self._turn = asyncio.get_running_loop().create_future()

    async def turn(self) -> ResultT | Parked:
        """What comes of the turn that it has; of another one if it was parked.

        Raises:
            PreparerLostError: the process ended.
            CallCancelledError: the caller left.
        """
        if self.is_abandoned:
            raise CallCancelledError("the caller left")
        if self.is_parked:
            self._preparer.send(GoOn(self._number))
            self.is_parked = False
            self._turn = asyncio.get_running_loop().create_future()
        assert self._turn is not None
        try:
            return await self._turn
        finally:
            self._turn = None  # or an error's traceback would hold this, and this the error, and all that was sent

    def abandon(self) -> None:
        """Nobody waits for it any more; the process is given some time to be done with it."""
        if self._number in self._preparer.photos and not self.is_abandoned:
            self.is_abandoned = True
            self._preparer.send(Abandon(self._number))
            self._silence = asyncio.get_running_loop().call_later(SILENCE_S, self._give_up)

    def said(self, outcome: object) -> None:
        """The process said what came of a turn."""
        self.is_parked = isinstance(outcome, Parked) and not self.is_abandoned
        if not isinstance(outcome, Parked):
            self._done()
            self._give_back_later()
        if self._turn is None or self._turn.done():
            return
        if isinstance(outcome, Exception):
            self._turn.set_exception(outcome)
        else:
            self._turn.set_result(cast("ResultT | Parked", outcome))

    def lost(self) -> None:
        """The process is gone, and with it all that was held."""
        self._done()
        if self._grant is not None:
            self._grant.let_go()
        if self._turn is not None and not self._turn.done():
            self._turn.set_exception(PreparerLostError())

    def _give_up(self) -> None:
        logger.error("a process that prepares photos said nothing for %.0f s of a picture: ended", SILENCE_S)
        self._preparer.end()

    def _done(self) -> None:
        del self._preparer.photos[self._number]
        if self._silence is not None:
            self._silence.cancel()

    def _give_back_later(self) -> None:
        """What a large body left behind here on its way is the system's again before somebody else has this much."""
        if self._grant is not None:
            grant, trimmed = self._grant, asyncio.get_running_loop().run_in_executor(None, return_unused_pages)
            trimmed.add_done_callback(lambda _: grant.let_go())
