"""A preparer's own process: hears of photos, takes their steps, and says what came of each.

The main thread listens. A photo begins on one thread, and goes on, once it was parked, on another: so at most two
photos have pixels here, and one that is parked never waits behind a new one. Whoever waits for the next turn is said
by a byte of memory that all preparers share with the gateway.
"""

import os
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ferserve.faces.decode_memory import MemoryNeededError
from ferserve.faces.detectors import load_detector
from ferserve.faces.errors import FerserveError
from ferserve.serving.allocator import return_unused_pages
from ferserve.serving.preparer import FREE_BYTES, Caller, Preparer, Work
from ferserve.serving.preparers.messages import (
    Abandon,
    Begin,
    Connection,
    GoOn,
    PreparerSettings,
    RemoteError,
    Said,
    Started,
)
from ferserve.serving.preparers.protocol import Parked
from ferserve.serving.preparers.turns import Turns, ending_with

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
        self._photos: dict[int, Turns[object]] = {}
        self._begun, self._parked = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("begun", "parked"))
        self._place = threading.Semaphore(1)
        self._saying = threading.Lock()

    def serve(self) -> None:
        """Until the connection ends.

        Raises:
            EOFError, OSError: it ended.
        """
        while True:
            message = self._connection.receive()
            match message:
                case Begin():
                    caller = Caller(deadline_s=message.deadline_s, granted_bytes=message.granted_bytes)
                    turns = self._turns(message.work, caller)
                    self._photos[message.photo] = turns
                    is_over = self._is_over if message.parks else _never
                    self._begun.submit(self._turn, message.photo, turns, is_over)
                case GoOn():
                    self._parked.submit(self._turn, message.photo, self._photos[message.photo], self._is_over)
                case Abandon():
                    found = self._photos.get(message.photo)
                    if found is not None and found.abandon():
                        self._say(message.photo, None)
            del message  # the picture is the photo's alone

    def _turns(self, work: Work[object], caller: Caller) -> Turns[object]:
        pages_go = caller.granted_bytes > FREE_BYTES
        steps = ending_with(work.steps(self._preparer, caller), return_unused_pages if pages_go else _nothing)
        return Turns(steps, caller, self._place, CLOCK, keeps_place=True)

    def _turn(self, photo: int, turns: Turns[object], is_over: Callable[[float], bool]) -> None:
        try:
            outcome = turns.have_turn(is_over)
        except (FerserveError, MemoryNeededError) as error:
            outcome = error
        except Exception:  # noqa: BLE001 - whoever waits in the gateway hears of it
            outcome = RemoteError(traceback.format_exc())
        self._say(photo, outcome)

    def _say(self, photo: int, outcome: object) -> None:
        if not isinstance(outcome, Parked):
            self._photos.pop(photo, None)
        with self._saying:
            try:
                self._connection.send(Said(photo, outcome))
            except OSError:  # the gateway is gone, which the main thread hears too
                return

    def _is_over(self, taken_s: float) -> bool:
        return taken_s >= self._turn_s and self._others_wait()


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


def _never(_taken_s: float) -> bool:
    return False


def _nothing() -> None:
    """Small pictures leave nothing worth looking for."""
