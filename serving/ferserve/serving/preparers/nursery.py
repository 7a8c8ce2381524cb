"""Starts the program that preparers are forked from, and has it fork, end and bury them."""

import asyncio
import logging
import mmap
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.own_process import ending_text, start_program
from ferserve.serving.preparers import zygote
from ferserve.serving.preparers.messages import PreparerSettings, frame
from ferserve.serving.preparers.remote import PreparerLostError, RemotePreparer

logger = logging.getLogger(__name__)
STOP_TIMEOUT_S: Final = 5.0
START_TIMEOUT_S: Final = 60.0
"""Imports on a busy machine, and the detector."""
ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""NumPy's library starts its threads when it is imported, and they would not survive a fork."""


class Nursery:
    """Makes preparers. All calls belong to one event loop.

    Args:
        settings: what every preparer is told.
        program: the module to run; another one in tests.
    """

    def __init__(self, settings: PreparerSettings, *, program: str = zygote.__name__) -> None:
        self._settings = settings
        self._program = program
        self._numbers = count()
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._living: dict[int, RemotePreparer] = {}
        self._flags_descriptor = _shared_page()
        self._flags = mmap.mmap(self._flags_descriptor, mmap.PAGESIZE)

    def others_wait(self, they_do: bool) -> None:  # noqa: FBT001 -- the one thing that it says
        """Tell all preparers whether a turn that has lasted its time is to end, without a word."""
        self._flags[0] = they_do

    async def fork(self, on_lost: Callable[[RemotePreparer], None]) -> RemotePreparer:
        """A preparer that has said that it is there.

        Args:
            on_lost: told once, when it has ended; also where it never came to be there.
        Raises:
            FerserveError: the detector does not run.
            PreparerLostError: it ended on the way.
            WorkerFailedError: no process can be started.
        """
        number = next(self._numbers)
        ours, its = socket.socketpair()
        with its:
            try:
                await self._order(zygote.FORK, number, its.fileno())
            except BaseException:
                ours.close()
                raise
        preparer = RemotePreparer(number, kill=self._kill, on_lost=on_lost)
        self._living[number] = preparer
        await asyncio.get_running_loop().create_unix_connection(lambda: preparer, sock=ours)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await preparer.started
        except BaseException as error:
            preparer.end()
            if isinstance(error, TimeoutError):
                raise WorkerFailedError(f"a preparer was not there within {START_TIMEOUT_S:.0f} s") from None
            raise
        return preparer

    async def close(self) -> None:
        """End all of them at once."""
        self._let_orders_go()
        if self._process is not None:
            await asyncio.to_thread(_end, self._process)
        self._flags.close()
        os.close(self._flags_descriptor)

    async def _order(self, order: bytes, number: int, *descriptors: int) -> None:
        """Give an order to the zygote, which is started at the first one, and anew after it has died."""
        async with self._starting:
            if self._orders is None:
                await self._start()
        assert self._orders is not None
        try:
            socket.send_fds(self._orders, [zygote.ORDER.pack(order, number)], descriptors)
        except OSError as error:
            raise PreparerLostError from error

    async def _start(self) -> None:
        if self._process is not None:  # it has died
            await asyncio.to_thread(_end, self._process)
        ours, its = socket.socketpair()
        try:
            self._process = await asyncio.to_thread(
                start_program, self._program, its, self._flags_descriptor, environment=os.environ | ONE_THREAD
            )
            await asyncio.to_thread(_send_all, ours, frame(self._settings))
        except OSError as error:
            ours.close()
            raise WorkerFailedError(f"no process for preparers can be started: {error.strerror}") from error
        ours.setblocking(False)
        self._orders = ours
        asyncio.get_running_loop().add_reader(ours, self._on_endings)

    def _on_endings(self) -> None:
        assert self._orders is not None
        with suppress(BlockingIOError):
            try:
                came = self._orders.recv(zygote.ENDING.size * 64)  # records are written whole
            except ConnectionError:
                came = b""
            for number, code in zygote.ENDING.iter_unpack(came[: len(came) // zygote.ENDING.size * zygote.ENDING.size]):
                self._buried(number, code)
            if not came:
                self._zygote_died()

    def _zygote_died(self) -> None:
        """All of its preparers end with it; the next order starts another one."""
        self._let_orders_go()
        logger.error("the process that preparers are forked from has ended")
        for preparer in self._living.values():
            preparer.end()
        self._living.clear()

    def _buried(self, number: int, code: int) -> None:
        preparer = self._living.pop(number, None)
        if preparer is not None and not preparer.was_told_to_end:
            logger.error("a process that prepares photos %s", ending_text(code))

    def _kill(self, number: int) -> None:
        if self._orders is not None:
            with suppress(OSError):  # the zygote is dying, and all with it
                self._orders.send(zygote.ORDER.pack(zygote.KILL, number))

    def _let_orders_go(self) -> None:
        if self._orders is not None:
            asyncio.get_running_loop().remove_reader(self._orders)
            self._orders.close()
            self._orders = None


def _shared_page() -> int:
    """The descriptor of a page of memory that other processes can have too."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("ferserve-waiting")
    else:
        descriptor, name = tempfile.mkstemp()
        Path(name).unlink()
    os.ftruncate(descriptor, mmap.PAGESIZE)
    return descriptor


def _send_all(to: socket.socket, parts: list[bytes | memoryview]) -> None:
    for part in parts:
        to.sendall(part)


def _end(process: subprocess.Popen[bytes]) -> None:
    """It ends by itself, as its socket is closed; unless something is wrong with it."""
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
