"""The process that preparers are forked from, as the gateway sees it: forked itself before all else, or started anew.

A gateway's first one is forked when it has imported what preparers need and nothing else: what all of them have
imported is in memory once, and not imported twice. After it has died another one is started as a program of its own,
because by then the gateway has threads.
"""

import gc
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, Self

from ferserve.serving.own_process import ONE_THREAD, start_program
from ferserve.serving.preparers import zygote

_STOP_TIMEOUT_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.01


class SharedPage:
    """Memory that is the same in all processes that have its descriptor."""

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("ferserve-waiting")
        else:
            self.descriptor, name = tempfile.mkstemp()
            Path(name).unlink()
        try:
            os.ftruncate(self.descriptor, mmap.PAGESIZE)
        except OSError:  # no byte may be written to any file: forks have the page all the same
            self.bytes = mmap.mmap(-1, mmap.PAGESIZE)
        else:
            self.bytes = mmap.mmap(self.descriptor, mmap.PAGESIZE)

    def close(self) -> None:
        """Let go of it, once; the others keep it."""
        if not self.bytes.closed:
            self.bytes.close()
            os.close(self.descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A zygote that runs.

    Attributes:
        orders: the gateway's end of the socket; the zygote ends when it is closed.
        page: whose first byte says whether photos wait.
        bury: waits for its end, which is forced after some seconds; blocks.
    """

    pid: int
    orders: socket.socket
    page: SharedPage
    bury: Callable[[], None]

    @classmethod
    def forked(cls) -> Self:
        """Fork it from this process, which has no thread yet and has imported no more than it must."""
        ours, its = socket.socketpair()
        page = SharedPage()
        gc.collect()
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            _be_zygote(ours, its, page)
        its.close()
        return cls(pid=pid, orders=ours, page=page, bury=lambda: _bury(pid))

    @classmethod
    def started(cls, program: str, page: SharedPage) -> Self:
        """Start it as a program of its own; blocks.

        Raises:
            OSError: no process can be started.
        """
        ours, its = socket.socketpair()
        try:
            process = start_program(program, its, page.descriptor, environment=os.environ | ONE_THREAD)
        except OSError:
            ours.close()
            raise
        return cls(pid=process.pid, orders=ours, page=page, bury=lambda: _bury_program(process))

    def close(self) -> None:
        """End it where nobody has used it."""
        self.orders.close()
        self.bury()
        self.page.close()


def _be_zygote(ours: socket.socket, its: socket.socket, page: SharedPage) -> NoReturn:
    try:
        ours.close()
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)  # standard output is the gateway's own
        zygote.main(its.detach(), page.bytes)
    except BaseException:  # noqa: BLE001 - nothing of the gateway's may run here
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def _bury(pid: int) -> None:
    until_s = time.monotonic() + _STOP_TIMEOUT_S
    while time.monotonic() < until_s:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(_LOOK_EVERY_S)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _bury_program(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
