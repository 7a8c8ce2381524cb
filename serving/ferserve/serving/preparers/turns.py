"""One photo's steps, turn by turn, on whatever thread it is given."""

import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from ferserve.serving.errors import CallCancelledError
from ferserve.serving.preparer import Caller, Steps
from ferserve.serving.preparers.protocol import PARKED, Parked

ResultT = TypeVar("ResultT")


class Turns(Generic[ResultT]):
    """A photo's turns follow each other, on any thread; `abandon` comes from another one at any time.

    Args:
        parking: a place for each photo that may wait half done.
        keeps_place: a photo that was parked once keeps its place until it is done, and so finds it again.
    """

    def __init__(
        self,
        steps: Steps[ResultT],
        caller: Caller,
        parking: threading.Semaphore,
        clock: Callable[[], float],
        *,
        keeps_place: bool = False,
    ) -> None:
        self._steps = steps
        self._caller = caller
        self._parking = parking
        self._clock = clock
        self._keeps_place = keeps_place
        self._has_place = False
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
            self._is_parked = False
            if not self._keeps_place:
                self._leave_place()
        try:
            while True:
                try:
                    next(self._steps)
                except StopIteration as done:
                    result: ResultT = done.value
                    return result
                with self._between_steps:
                    self._check_caller()
                    if is_over(self._clock() - began_s) and self._has_or_takes_place():
                        self._is_parked = True
                        return PARKED
        finally:
            with self._between_steps:
                if not self._is_parked:
                    self._leave_place()

    def abandon(self) -> bool:
        """Nobody waits for it any more; what it holds is let go of now, or by its thread after this step.

        Returns:
            Whether it was parked, so that no thread will say anything of it again.
        """
        with self._between_steps:
            self._caller.has_left = True
            was_parked, self._is_parked = self._is_parked, False
            with suppress(ValueError):  # a thread is in the middle of a step
                self._steps.close()
                self._leave_place()
            return was_parked

    def _check_caller(self) -> None:
        if self._caller.has_left:
            self._steps.close()
            raise CallCancelledError("the caller left")

    def _has_or_takes_place(self) -> bool:
        self._has_place = self._has_place or self._parking.acquire(blocking=False)
        return self._has_place

    def _leave_place(self) -> None:
        if self._has_place:
            self._has_place = False
            self._parking.release()


def ending_with(steps: Steps[ResultT], at_end: Callable[[], None]) -> Steps[ResultT]:
    """Steps after whose last one, however they end, their pixels are gone and then something is done."""
    try:
        return (yield from steps)
    except BaseException as error:
        _let_go_of_pixels(error)
        raise
    finally:
        at_end()


def _let_go_of_pixels(error: BaseException) -> None:
    """An error lives until it is answered; without this the frames that it passed through would keep their pictures."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
