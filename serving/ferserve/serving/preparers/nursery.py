"""Starts the program that preparers are forked from, and has it fork, end and bury them."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.own_process import ending_text
from ferserve.serving.preparers import zygote
from ferserve.serving.preparers.messages import PreparerSettings, frame
from ferserve.serving.preparers.origin import Origin, SharedPage
from ferserve.serving.preparers.remote import PreparerLostError, RemotePreparer

logger = logging.getLogger(__name__)
START_TIMEOUT_S: Final = 60.0
"""Imports on a busy machine, and the detector."""


class Nursery:
    """Makes preparers. All calls belong to one event loop.

    Args:
        settings: what every preparer is told.
        origin: what the first of them are forked from; one is started where there is none, or it has died.
        program: the module that is started then; another one in tests.
    """

    def __init__(
        self, settings: PreparerSettings, *, origin: Origin | None = None, program: str = zygote.__name__
    ) -> None:
        self._settings = settings
        self._program = program
        self._numbers = count()
        self._page = SharedPage() if origin is None else origin.page
        self._unused = origin
        self._origin: Origin | None = None
        self._starting = asyncio.Lock()
        self._living: dict[int, RemotePreparer] = {}
        self._burials: set[asyncio.Task[None]] = set()

    def others_wait(self, they_do: bool) -> None:  # noqa: FBT001 -- the one thing that it says
        """Tell all preparers whether a turn that has lasted its time is to end, without a word."""
        if not self._page.bytes.closed:
            self._page.bytes[0] = they_do

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
        try:
            ours, its = socket.socketpair()
        except OSError as error:  # no descriptor is free
            raise WorkerFailedError(f"no process for preparers can be started: {error.strerror}") from error
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
        if self._origin is not None:
            self._let_go(self._origin)
        if self._unused is not None:
            self._unused.orders.close()
            await asyncio.to_thread(self._unused.bury)
        await asyncio.gather(*self._burials)
        self._page.close()

    async def _order(self, order: bytes, number: int, *descriptors: int) -> None:
        """Give an order to the zygote, which is told its settings first."""
        async with self._starting:
            if self._origin is None:
                self._origin = await self._started()
        try:
            socket.send_fds(self._origin.orders, [zygote.ORDER.pack(order, number)], descriptors)
        except OSError as error:
            raise PreparerLostError from error

    async def _started(self) -> Origin:
        origin, self._unused = self._unused, None
        try:
            if origin is None:
                origin = await asyncio.to_thread(Origin.started, self._program, self._page)
            await asyncio.to_thread(_send_all, origin.orders, frame(self._settings))
        except OSError as error:
            if origin is not None:
                origin.orders.close()
                await asyncio.to_thread(origin.bury)
            raise WorkerFailedError(f"no process for preparers can be started: {error.strerror}") from error
        origin.orders.setblocking(False)
        asyncio.get_running_loop().add_reader(origin.orders, self._on_endings, origin)
        return origin

    def _on_endings(self, origin: Origin) -> None:
        with suppress(BlockingIOError):
            try:
                came = origin.orders.recv(zygote.ENDING.size * 64)  # records are written whole
            except ConnectionError:
                came = b""
            for number, code in zygote.ENDING.iter_unpack(came[: len(came) // zygote.ENDING.size * zygote.ENDING.size]):
                self._buried(number, code)
            if not came:
                self._origin_died(origin)

    def _origin_died(self, origin: Origin) -> None:
        """All of its preparers end with it; the next order starts another one."""
        logger.error("the process that preparers are forked from has ended")
        self._let_go(origin, orphans=[pid for preparer in self._living.values() if (pid := preparer.pid)])
        for preparer in self._living.values():
            preparer.end()
        self._living.clear()

    def _let_go(self, origin: Origin, *, orphans: Sequence[int] = ()) -> None:
        """It ends by itself, as its socket is closed; unless something is wrong with it.

        Args:
            orphans: what it forked and can bury no more.
        """
        self._origin = None
        asyncio.get_running_loop().remove_reader(origin.orders)
        origin.orders.close()
        task = asyncio.create_task(asyncio.to_thread(_bury, origin, orphans))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    def _buried(self, number: int, code: int) -> None:
        preparer = self._living.pop(number, None)
        if preparer is not None and not preparer.was_told_to_end:
            logger.error("a process that prepares photos %s", ending_text(code))

    def _kill(self, number: int) -> None:
        if self._origin is not None:
            with suppress(OSError):  # the zygote is dying, and all with it
                self._origin.orders.send(zygote.ORDER.pack(zygote.KILL, number))


def _bury(origin: Origin, orphans: Sequence[int]) -> None:
    origin.bury()
    for pid in orphans:
        with suppress(ChildProcessError):  # only who is the first process of a container inherits them
            os.waitpid(pid, 0)


def _send_all(to: socket.socket, parts: list[bytes | memoryview]) -> None:
    for part in parts:
        to.sendall(part)
