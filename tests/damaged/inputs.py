"""What a damaged input is: one of five kinds of message, each made only when it is sent."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.damaged.expected import Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Bytes in the place of a picture; they go through every door that takes pictures."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One POST to the REST port.

    Attributes:
        target: path and query, as they stand in the request line.
        headers: as they are sent; `Host`, `Connection` and the body's length are added.
        chunk_bytes: the body is sent in chunks of so many bytes, its length unannounced; None announces it.
    """

    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    chunk_bytes: int | None = None

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """The request as it is written to a connection that is closed after it."""
        size = self.chunk_bytes
        framing = ("Content-Length", str(len(self.body))) if size is None else ("Transfer-Encoding", "chunked")
        lines = [f"POST {self.target} HTTP/1.1", "Host: x", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (*self.headers, framing)]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if size is None:
            return (head, self.body)
        chunks = (self.body[at : at + size] for at in range(0, len(self.body), size))
        return (head, *(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks), b"0\r\n\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawConnection:
    """What is written to a connection to the REST or the gRPC port.

    Attributes:
        pieces: written one after the other.
        pause_s: between the pieces, unless the server has ended the connection before.
        ending: `wait` for the server's end, `half` shuts the sending side first, `close` leaves without reading.
        to_grpc: the gRPC port, where there is no HTTP/1.
    """

    pieces: tuple[bytes, ...]
    pause_s: float = 0.0
    ending: str = "wait"
    to_grpc: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcMessage:
    """Bytes in the place of a request message of a unary method."""

    method: str
    data: bytes
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcStream:
    """One StreamAnalyze call.

    Attributes:
        frames: bytes in the place of its messages.
        leave_after: replies after which the caller leaves without a word; None reads all of them.
    """

    frames: tuple[bytes, ...]
    leave_after: int | None = None


Message = Picture | HttpRequest | RawConnection | RpcMessage | RpcStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """One input.

    Attributes:
        kind: what is wrong with it, one word.
        index: counted within its kind.
        make: builds the message; the same one every time.
        expected: what it may get.
    """

    kind: str
    index: int
    what: str
    make: Callable[[], Message] = field(repr=False)
    expected: Expected

    @property
    def name(self) -> str:
        """Unique within a corpus."""
        return f"{self.kind}-{self.index:03d} ({self.what})"
