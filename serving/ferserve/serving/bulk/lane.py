"""A lane scores one chunk of pictures after the other, in a process of its own or on a thread of this one.

A process has its own interpreter lock and its own memory: no lane waits for another's Python, and a picture that kills
the decoder takes no more down with it than its own lane.
"""

import asyncio
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol, TypeVar

from ferserve.faces.errors import FerserveError
from ferserve.serving.bulk import lane_process
from ferserve.serving.bulk.chunks import Answer, Ask, ChunkScorer, ScorerConfig
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.own_process import ending_text, start_program

ResultT = TypeVar("ResultT")
CHUNK_TIMEOUT_S: Final = 600.0
"""Nobody waits for a folder's picture, so this only ends one that never ends."""


class LaneDiedError(Exception):
    """The lane ended, or was ended, before it answered; `start` gives it another life.

    Attributes:
        error: what the chunk's picture gets, where it was the only one.
    """

    def __init__(self, error: WorkerFailedError) -> None:
        super().__init__(error.message)
        self.error = error


class Lane(Protocol):
    """One chunk at a time; all calls belong to one event loop."""

    async def start(self) -> None:
        """Get ready, at first or after a death.

        Raises:
            LaneDiedError: it died on the way; another try may do.
            FerserveError: it does not work.
        """
        ...

    async def score(self, asks: Sequence[Ask]) -> list[Answer]:
        """An answer for each, in order.

        Raises:
            LaneDiedError: none of them has one.
            FerserveError: the run is to end.
        """
        ...

    async def close(self) -> None:
        """Stop at once."""
        ...


class ThreadLane:
    """Scores on a thread of this process; does not die alone."""

    def __init__(self, config: ScorerConfig) -> None:
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lane")
        self._scorer: ChunkScorer | None = None

    async def start(self) -> None:
        """Load the archive and the detector."""
        self._scorer = await self._on_thread(lambda: ChunkScorer(self._config))

    async def score(self, asks: Sequence[Ask]) -> list[Answer]:
        """An answer for each, in order."""
        assert self._scorer is not None
        scorer = self._scorer
        return await self._on_thread(lambda: scorer.score(asks))

    async def close(self) -> None:
        """Let the thread go; a chunk that was begun ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class ProcessLane:
    """Scores in a process of its own, which ends with this one however this one ends.

    Args:
        chunk_timeout_s: after so long without an answer the process is ended.
    """

    def __init__(self, config: ScorerConfig, *, chunk_timeout_s: float = CHUNK_TIMEOUT_S) -> None:
        self._config = config
        self._chunk_timeout_s = chunk_timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lane")  # it waits, no more
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def process_id(self) -> int | None:
        """Of the process; None before the first start."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Begin the process and wait until it has scored for real."""
        await self._on_thread(self._start)

    async def score(self, asks: Sequence[Ask]) -> list[Answer]:
        """An answer for each, in order."""
        return await self._on_thread(lambda: self._scored(asks))

    async def close(self) -> None:
        """End the process at once: it holds nothing that would be missed."""
        if self._process is not None:
            self._process.kill()  # whoever waits for it on the thread hears of it
        await asyncio.get_running_loop().run_in_executor(self._thread, self._bury)
        self._thread.shutdown(wait=False)

    def _start(self) -> None:
        self._bury()
        ours, its = socket.socketpair()
        try:
            self._process = start_program(lane_process.__name__, its)
        except OSError as error:
            ours.close()
            raise LaneDiedError(WorkerFailedError(f"no process can be started: {error.strerror}")) from error
        self._connection = Connection(ours.detach())
        failed = self._exchanged(self._config)
        if isinstance(failed, FerserveError):
            raise failed

    def _scored(self, asks: Sequence[Ask]) -> list[Answer]:
        answers: list[Answer] | FerserveError = self._exchanged(asks)
        if isinstance(answers, FerserveError):
            raise answers
        return answers

    def _exchanged(self, message: object) -> Any:
        assert self._process is not None
        assert self._connection is not None
        try:
            self._connection.send(message)
            if self._connection.poll(self._chunk_timeout_s):
                return self._connection.recv()
        except (EOFError, OSError):
            raise LaneDiedError(WorkerFailedError(_ending(self._process.wait()))) from None
        self._process.kill()
        self._process.wait()
        raise LaneDiedError(WorkerFailedError(f"nothing came within {self._chunk_timeout_s:.0f} s"))

    def _bury(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def _on_thread(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _ending(code: int) -> str:
    return f"expected scores, but the process that was to give them {ending_text(code)}"
