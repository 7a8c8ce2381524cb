"""The program that preparers are forked from (`nursery` runs it): it has imported what they need, and nothing else.

A fork takes milliseconds and shares all that was imported; this program starts no thread and no session that would not
survive one. Its arguments are the descriptors of a socket to the gateway and of the memory that says whether others
wait. It ends when the gateway does, and its preparers with it: kill -9 of either leaves nobody behind.
"""

import ctypes
import gc
import logging
import mmap
import os
import resource
import selectors
import signal
import socket
import struct
import sys
from types import FrameType
from typing import Final, NoReturn

import cv2

from ferserve.serving.allocator import return_large_buffers
from ferserve.serving.cores import stand_back, switch_often
from ferserve.serving.preparers.messages import Connection, PreparerSettings
from ferserve.serving.preparers.process import serve

ORDER: Final = struct.Struct("<cI")
"""From the gateway: FORK, with the preparer's end of a socket beside it, or KILL; and the preparer's number."""
ENDING: Final = struct.Struct("<Ii")
"""To the gateway: a preparer's number, and its exit status or, below 0, its signal."""
FORK: Final = b"f"
KILL: Final = b"k"
_PR_SET_PDEATHSIG: Final = 1


class Zygote:
    """Forks, ends and buries preparers as the gateway says.

    Args:
        gateway: the orders come from here, and endings go there.
        flags: not 0 while photos wait; shared with the gateway and with every preparer.
    """

    def __init__(self, gateway: socket.socket, flags: mmap.mmap) -> None:
        self._gateway = gateway
        self._flags = flags
        self._pids: dict[int, int] = {}

    def serve(self) -> None:
        """Until the gateway is gone; its settings come first.

        Raises:
            EOFError, OSError: it went in between.
        """
        settings: PreparerSettings = Connection(self._gateway).receive()
        woken, wakes = _pipe()
        signal.signal(signal.SIGCHLD, _wake)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._gateway, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._gateway:
                        if not self._obey(settings):
                            return
                    else:
                        os.read(woken, 512)
                        self._bury()

    def end(self) -> None:
        """End all preparers, and wait for it."""
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)  # nobody else buries them, so it is still theirs
        for pid in self._pids.values():
            os.waitpid(pid, 0)

    def _obey(self, settings: PreparerSettings) -> bool:
        """Follow one order; False if none will come any more."""
        order, descriptors, _, _ = socket.recv_fds(self._gateway, ORDER.size, 1)
        if len(order) < ORDER.size:
            return False
        what, number = ORDER.unpack(order)
        if what == FORK:
            with socket.socket(fileno=descriptors[0]) as its:
                self._fork(number, its, settings)
        elif number in self._pids:  # or it has ended by itself
            os.kill(self._pids[number], signal.SIGKILL)
        return True

    def _fork(self, number: int, its: socket.socket, settings: PreparerSettings) -> None:
        try:
            pid = os.fork()
        except OSError as error:  # no more processes are allowed: this one has ended before it was there
            self._gateway.sendall(ENDING.pack(number, error.errno))
            return
        if pid == 0:
            self._be_preparer(its, settings)
        self._pids[number] = pid

    def _bury(self) -> None:
        for number, pid in list(self._pids.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self._pids[number]
                self._gateway.sendall(ENDING.pack(number, os.waitstatus_to_exitcode(status)))

    def _be_preparer(self, its: socket.socket, settings: PreparerSettings) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._gateway.close()
            _end_with_parent()
            stand_back()
            serve(Connection(its), settings, lambda: self._flags[0] != 0)
        except BaseException:  # noqa: BLE001 - nothing of the zygote's may run here
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)


def _wake(_number: int, _frame: FrameType | None) -> None:
    """Python writes to the pipe; a signal without a handler would not wake anybody."""


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


def _end_with_parent() -> None:
    """Linux ends this process with the one that forked it; elsewhere the socket's end does, after the present step."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(gateway: int, flags: mmap.mmap) -> None:
    """Be the zygote."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # they may reach the whole group; the gateway drains, and then ends this
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a decoder that crashes has a caller's picture in memory
    logging.disable()  # Pillow's remarks are about callers' bytes; what a preparer has to say it tells the gateway
    return_large_buffers()
    switch_often()
    cv2.setNumThreads(1)  # there is a process for every core
    gc.collect()
    gc.freeze()
    zygote = Zygote(socket.socket(fileno=gateway), flags)
    try:
        zygote.serve()
    except (EOFError, OSError):  # the gateway is gone
        pass
    finally:
        zygote.end()


def main_program(arguments: list[str]) -> None:
    """Be the zygote as a program: its arguments are two descriptors."""
    gateway, flags = map(int, arguments)
    try:
        page = mmap.mmap(flags, mmap.PAGESIZE)
    except ValueError:  # where no byte may be written to any file it is empty: then nobody's turn ends early
        page = mmap.mmap(-1, mmap.PAGESIZE)
    main(gateway, page)


if __name__ == "__main__":
    main_program(sys.argv[1:])
