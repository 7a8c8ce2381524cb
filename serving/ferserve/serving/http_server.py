"""uvicorn inside our own process and loop: sockets bound before anything starts, no signal handlers of its own."""

import asyncio
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ferserve.faces.errors import InvalidRequestError
from ferserve.serving.errors import StartError
from ferserve.serving.rest_errors import JSON_TYPE, error_detail
from ferserve.serving.rest_schema import ErrorMessage
from ferserve.serving.tls import ServerTls

MAX_PORT: Final = 65535
BACKLOG: Final = 1024
MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request's line and headers, and as much of trailers and of framing between two pieces of a body."""
LINGER_S: Final = 2.0
"""How long a sender of what is no request may take to hear of it."""
FIRST_SIGN_S: Final = 0.25
"""From the first sign of life to a caller who sends no more until the second; each further one takes twice as long."""
SIGN_OF_LIFE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Callers of HTTP/1.1 pass over it, asked for or not. Source: RFC 9110, sections 15.2 and 15.2.1."""


def check_port(port: int) -> None:
    """Raise ValueError unless `port` is a TCP port or 0, which stands for a free one."""
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"port must be 0 to {MAX_PORT}, got {port}")


def bind(host: str, port: int) -> socket.socket:
    """Bind a TCP socket that does not listen yet.

    Raises:
        StartError: the port is taken, or the host is not one of this machine's addresses.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"cannot listen on {host}: {error.strerror}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return bound


def address_of(bound: socket.socket) -> str:
    """`host:port` of a bound socket, the host in brackets if it is an IPv6 address."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class HttpServer:
    """One ASGI application on one socket.

    Args:
        header_timeout_s: longest that a connection may take to send a request's head.
        keep_alive_s: how long an idle connection is kept.
        max_message_bytes: of one WebSocket message; None for an application that takes none.
        tls: what connections are secured with; None for none.
    """

    def __init__(
        self,
        app: ASGIApp,
        bound: socket.socket,
        *,
        header_timeout_s: float,
        keep_alive_s: int,
        max_message_bytes: int | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        self._config = uvicorn.Config(
            app,
            http=partial(_BoundedHeadProtocol, header_timeout_s),  # type: ignore[arg-type] # it is only ever called
            ws="none" if max_message_bytes is None else "websockets-sansio",
            ws_max_size=max_message_bytes or 0,
            ws_per_message_deflate=False,  # what comes is compressed already, and inflating is a way to fill memory
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=keep_alive_s,
            ssl_context_factory=None if tls is None else lambda _config, _default: tls.context(),
        )
        self._server = _QuietServer(self._config)
        self._socket = bound
        self._serving: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """`host:port` that it listens on."""
        return address_of(self._socket)

    def unbind(self) -> None:
        """Give the port back without ever having listened."""
        self._socket.close()

    def start(self) -> None:
        """Begin to listen, inside the running loop."""
        self._socket.listen(BACKLOG)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def ended(self) -> None:
        """Return when the server has ended, for whatever reason."""
        if self._serving is not None:
            await asyncio.wait((self._serving,))

    async def stop(self, timeout_s: float) -> None:
        """Close the port, let requests finish for up to `timeout_s` seconds, cancel what is left."""
        if self._serving is None:
            self.unbind()
            return
        self._config.timeout_graceful_shutdown = max(round(timeout_s), 1)
        self._server.should_exit = True
        await self._serving


class _QuietServer(uvicorn.Server):
    """Leaves the process's signals to whoever runs the gateway."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _BoundedHeadProtocol(HttpToolsProtocol):
    """Bounds a request's head in time and length, and answers callers who have closed their sending side.

    uvicorn alone would wait for the end of a head, and keep what comes, for ever.

    It also takes the end of what a caller sends for the caller's leaving. Both look the same until something is sent:
    then the system of one who has left resets the connection, while one who waits passes over a `100 Continue`. So
    whoever has sent a whole request and then no more gets such signs of life until the answer, and the request of one
    who has left ends with the second of them. HTTP/1.0 knows no interim answers, asyncio's TLS no
    connection that is open one way; there the end is taken for leaving.
    """

    def __init__(self, header_timeout_s: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._header_timeout_s = header_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._overhead_bytes = 0  # came since the last piece of a body or end of a head
        self._is_refused = False
        self._is_upgraded = False
        self._sign_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        if self._sign_timer is not None:
            self._sign_timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override] # as asyncio has it
        """Whether the connection stays open for the answer."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None or cycle.more_body or cycle.response_complete or self._is_refused:
            return False
        if cycle.scope["http_version"] != "1.1" or not self.transport.can_write_eof():
            return False
        self._head_arrived()  # of a next request that will not come
        self.cycle.keep_alive = False
        self._give_sign(FIRST_SIGN_S)
        return True

    def _give_sign(self, next_in_s: float) -> None:
        if self.transport.is_closing() or self.cycle.response_started:
            return
        if not self.pipeline:  # or it might stand in the middle of an earlier answer
            self.transport.write(SIGN_OF_LIFE)
        self._sign_timer = self.loop.call_later(next_in_s, self._give_sign, 2 * next_in_s)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._overhead_bytes += len(data)
        super().data_received(data)
        if not self._is_upgraded:
            self._check_progress()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the WebSocket's protocol."""
        self._head_arrived()
        self._is_upgraded = True
        super().handle_websocket_upgrade()

    def _check_progress(self) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        if self._overhead_bytes > MAX_HEAD_BYTES:
            self.send_400_response(f"expected a head of at most {MAX_HEAD_BYTES} bytes, got more")
        elif self._head_timer is None and self.cycle.response_complete:
            self._await_head()  # empty lines between requests have ended uvicorn's own wait for the next one

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP request in the form of every other error; `msg` is uvicorn's or ours."""
        detail = error_detail(InvalidRequestError(msg), uuid.uuid4().hex)
        content = ErrorMessage(error=detail).model_dump_json(exclude_none=True).encode()
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: {JSON_TYPE}\r\ncontent-length: {len(content)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode() + content)
        self._is_refused = True
        self._head_arrived()
        cycle = cast("RequestResponseCycle | None", self.cycle)  # uvicorn's annotation leaves out the None
        if cycle is not None and not cycle.response_complete:
            self.transport.close()  # whose body this was has to hear of it
            return
        # What still comes is thrown away: closing over it would reset the connection, and with it the answer.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._head_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._head_arrived()
        self._overhead_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead_bytes = 0
        super().on_message_complete()

    def _await_head(self) -> None:
        self._head_arrived()
        self._head_timer = self.loop.call_later(self._header_timeout_s, self.transport.close)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
