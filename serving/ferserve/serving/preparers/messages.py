"""What the gateway and the processes of its own that prepare photos say to each other, and how it is written.

A frame is its lengths, a pickle, and then whatever the pickle leaves out: encoded pictures are passed from buffer to
buffer and never copied into another one. Both ends are one program on one machine.
"""

import pickle
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ferserve.faces.decode import DecodeLimits
from ferserve.serving.preparer import Work

_HEAD: Final = struct.Struct("<QI")
"""Bytes of the pickle; buffers beside it."""
_LENGTH: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparerSettings:
    """What every preparer is told before its first photo.

    Attributes:
        detector: as `load_detector` takes it.
        max_decode_bytes: what takes more memory than this is refused.
        turn_s: CPU time that a photo has while others wait.
    """

    detector: str
    limits: DecodeLimits
    max_decode_bytes: int
    turn_s: float


class Begin(NamedTuple):
    """To a preparer: a photo's first turn.

    Attributes:
        parks: whether a turn may end before the photo is done.
    """

    photo: int
    work: Work[object]
    deadline_s: float
    granted_bytes: int
    parks: bool


class GoOn(NamedTuple):
    """To a preparer: another turn of a photo that is parked."""

    photo: int


class Abandon(NamedTuple):
    """To a preparer: nobody waits for this photo. It is answered all the same, once its pixels are gone."""

    photo: int


class Started(NamedTuple):
    """From a preparer, first of all: it is there."""

    pid: int
    detector: str


class Said(NamedTuple):
    """From a preparer, at a turn's end: PARKED, or the photo's result, or the exception that it ended with."""

    photo: int
    outcome: object


class PreparerFaultError(Exception):
    """What went wrong in a preparer and was foreseen by nobody; the message is the traceback there."""


def frame(message: object) -> list[bytes | memoryview]:
    """A message as it is sent, in parts."""
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    lengths = b"".join(_LENGTH.pack(part.nbytes) for part in raw)
    return [_HEAD.pack(len(text), len(raw)) + lengths + text, *raw]


class Frames:
    """Puts messages together from what comes, for frames with nothing beside their pickle."""

    def __init__(self) -> None:
        self._came = bytearray()

    def messages(self, data: bytes) -> Iterator[Any]:
        """The messages that are whole with this."""
        self._came += data
        while len(self._came) >= _HEAD.size:
            length, buffers = _HEAD.unpack_from(self._came)
            if buffers:
                raise ValueError(f"expected a frame without buffers, got {buffers}")
            end = _HEAD.size + length
            if len(self._came) < end:
                return
            message = pickle.loads(memoryview(self._came)[_HEAD.size : end])  # noqa: S301 - our own process
            del self._came[:end]
            yield message


class Connection:
    """One end of a socket, for a thread that may wait.

    Raises:
        EOFError, OSError: by both methods; the other end is gone.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        end.setblocking(True)
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def has_more(self) -> bool:
        """Whether `receive` would find something; also the end."""
        return bool(self._poll.poll(0))

    def send(self, message: object) -> None:
        """Send a message; small pictures' crops and no more, so no buffers beside it."""
        text = pickle.dumps(message, protocol=5)
        self._socket.sendall(_HEAD.pack(len(text), 0) + text)

    def receive(self) -> Any:
        """Wait for the next message."""
        length, count = _HEAD.unpack(self._read(_HEAD.size))
        lengths = [_LENGTH.unpack(self._read(_LENGTH.size))[0] for _ in range(count)]
        text = self._read(length)
        buffers = [self._read(size) for size in lengths]
        return pickle.loads(text, buffers=buffers)  # noqa: S301 - our own process

    def _read(self, size: int) -> bytes:
        """So many bytes, as one object that was never anything else."""
        data = self._socket.recv(size, socket.MSG_WAITALL) if size else b""
        while len(data) < size:  # a signal came in between
            more = self._socket.recv(size - len(data), socket.MSG_WAITALL)
            if not more:
                raise EOFError
            data += more
        return data
