"""Ctrl-C and TERM as a wish to end soon, not at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_stop(wish: Callable[[], None]) -> Iterator[None]:
    """While open, Ctrl-C or a TERM signal calls `wish`; a second one does what it did before.

    Outside the main thread, where no signal can be taken, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(_number: int, _frame: FrameType | None) -> None:
        restore()
        wish()

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    for number in former:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
