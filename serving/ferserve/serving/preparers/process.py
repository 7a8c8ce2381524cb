"""A preparer's own process: hears of photos, takes their steps, and says what came of each. One thread does it all.

Between two steps it listens. A photo that was parked goes on only where no new one is in the works. One may always be
parked, and more as long as all of them hold no more pixels than a small picture may take to decode: with one place a
second crowd would go on to its end, and everybody else would wait for it. Whether others wait for a turn is said by a
byte of memory that all preparers share with the gateway.
"""

import os
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ferserve.faces.decode_memory import MemoryNeededError
from ferserve.faces.detectors import load_detector
from ferserve.faces.errors import FerserveError
from ferserve.serving.allocator import return_unused_pages
from ferserve.serving.errors import CallCancelledError
from ferserve.serving.preparer import FREE_BYTES, Caller, Preparer, Steps
from ferserve.serving.preparers.messages import (
    Abandon,
    Begin,
    Connection,
    GoOn,
    PreparerFaultError,
    PreparerSettings,
    Said,
    Started,
)
from ferserve.serving.preparers.protocol import PARKED
from ferserve.serving.preparers.turns import ending_with

CLOCK: Final = time.monotonic
"""The gateway's: deadlines are readings of it, and it is the same in all processes of a machine."""


def load_preparer(settings: PreparerSettings) -> tuple[Preparer, str]:
    """A preparer and its detector's name.

    Raises:
        ArchiveError, InvalidRequestError: the detector does not run.
    """
    detector = load_detector(settings.detector)
    preparer = Preparer(detector, settings.limits, CLOCK, max_decode_bytes=settings.max_decode_bytes)
    return preparer, detector.name


@dataclass(slots=True, kw_only=True, eq=False)
class _Photo:
    """A photo in the works.

    Attributes:
        parks: whether it may be left half done.
        was_parked: it is, or goes on from there.
        turn_cpu_s: what its turn has taken; a process that waits for a core has not had its turn.
    """

    number: int
    steps: Steps[object]
    caller: Caller
    parks: bool
    was_parked: bool = False
    turn_cpu_s: float = 0.0


class PreparerProcess:
    """Takes the steps of the photos that come through a connection.

    Args:
        others_wait: whether a turn that has lasted its time is to end; asked between steps.
    """

    def __init__(
        self, connection: Connection, preparer: Preparer, *, turn_s: float, others_wait: Callable[[], bool]
    ) -> None:
        self._connection = connection
        self._preparer = preparer
        self._turn_s = turn_s
        self._others_wait = others_wait
        self._photos: dict[int, _Photo] = {}
        self._begun: deque[_Photo] = deque()
        self._resumed: deque[_Photo] = deque()

    def serve(self) -> None:
        """Until the connection ends.

        Raises:
            EOFError, OSError: it ended.
        """
        while True:
            while not (self._begun or self._resumed) or self._connection.has_more():
                self._hear(self._connection.receive())
            self._step(self._begun or self._resumed)

    def _hear(self, message: object) -> None:
        match message:
            case Begin():
                caller = Caller(deadline_s=message.deadline_s, granted_bytes=message.granted_bytes)
                steps = ending_with(
                    message.work.steps(self._preparer, caller),
                    return_unused_pages if caller.granted_bytes > FREE_BYTES else None,
                )
                photo = _Photo(number=message.photo, steps=steps, caller=caller, parks=message.parks)
                self._photos[message.photo] = photo
                self._begun.append(photo)
            case GoOn():
                self._resumed.append(self._photos[message.photo])
            case Abandon() if message.photo in self._photos:
                self._abandon(self._photos[message.photo])

    def _step(self, turns: deque[_Photo]) -> None:
        """The next step of the first of these photos."""
        photo = turns[0]
        began_s = time.thread_time()
        try:
            next(photo.steps)
        except StopIteration as done:
            outcome: object = done.value
        except (FerserveError, MemoryNeededError) as error:
            outcome = error.with_traceback(None)  # which would hold this frame, and it the error
        except Exception:  # noqa: BLE001 - whoever waits in the gateway hears of it
            outcome = PreparerFaultError(traceback.format_exc())
        else:
            photo.turn_cpu_s += time.thread_time() - began_s
            if not self._is_over(photo):
                return
            outcome, photo.was_parked, photo.turn_cpu_s = PARKED, True, 0.0
        turns.popleft()
        if outcome is not PARKED:
            del self._photos[photo.number]
        self._connection.send(Said(photo.number, outcome))

    def _is_over(self, photo: _Photo) -> bool:
        """Whether a turn ends before its photo is done."""
        if not photo.parks or photo.turn_cpu_s < self._turn_s or not self._others_wait():
            return False
        others = [other for other in self._photos.values() if other.was_parked and other is not photo]
        return not others or sum(one.caller.held_bytes for one in (photo, *others)) <= FREE_BYTES

    def _abandon(self, photo: _Photo) -> None:
        for turns in (self._begun, self._resumed):
            if photo in turns:
                turns.remove(photo)
        photo.steps.close()
        del self._photos[photo.number]
        self._connection.send(Said(photo.number, CallCancelledError("the caller left")))


def serve(connection: Connection, settings: PreparerSettings, others_wait: Callable[[], bool]) -> None:
    """Be a preparer until the gateway ends the connection."""
    try:
        try:
            preparer, detector = load_preparer(settings)
        except FerserveError as error:
            connection.send(error)
            return
        connection.send(Started(os.getpid(), detector))
        PreparerProcess(connection, preparer, turn_s=settings.turn_s, others_wait=others_wait).serve()
    except (EOFError, OSError):
        return
