"""One photo's steps, turn by turn, on whatever thread it is given."""

import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from ferserve.serving.errors import CallCancelledError, with_those_behind
from ferserve.serving.preparer import Caller, Steps
from ferserve.serving.preparers.protocol import PARKED, Parked

ResultT = TypeVar("ResultT")


class Turns(Generic[ResultT]):
    """A photo's turns follow each other, on any thread; `abandon` comes from another one at any time.

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

    def have_turn(self, is_over: Callable[[float], bool]) -> ResultT | Parked:
        """Go on until the photo is done or the turn is over.

        Args:
            is_over: told for how many seconds the turn has gone on.
        Raises:
            CallCancelledError: the caller left.
        """
        began_s = self._clock()
        with self._between_steps:
            self._check_caller()
            self._leave_parking()
        while True:
            try:
                next(self._steps)
            except StopIteration as done:
                result: ResultT = done.value
                return result
            with self._between_steps:
                self._check_caller()
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

    def _check_caller(self) -> None:
        if self._caller.has_left:
            self._steps.close()
            raise CallCancelledError("the caller left")

    def _leave_parking(self) -> None:
        if self._is_parked:
            self._is_parked = False
            self._parking.release()


def ending_with(steps: Steps[ResultT], at_end: Callable[[], None] | None) -> Steps[ResultT]:
    """Steps after whose last one, however they end, their pixels are gone and then something is done, if anything."""
    try:
        return (yield from steps)
    except BaseException as error:
        _let_go_of_pixels(error)
        raise
    finally:
        if at_end is not None:
            at_end()


def _let_go_of_pixels(error: BaseException) -> None:
    """An error lives until it is answered; without this the frames that it passed through would keep their pictures."""
    for link in with_those_behind(error):
        traceback.clear_frames(link.__traceback__)
