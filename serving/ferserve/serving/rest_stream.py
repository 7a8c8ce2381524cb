"""The WebSocket `/v1/stream`: a frame is a message of 8 bytes of id and an encoded picture; one JSON reply each.

The options stand in the query or, as JSON, in a text message before the first frame. What is no frame has no id to
answer to: it ends the stream with an `{"error": ...}` and a close code, after the frames before it are answered.
Browsers show a page nothing of a refused handshake, so all that a page can be told is told after it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ferserve.faces.errors import ImageTooLargeError, InvalidRequestError, Reason
from ferserve.serving.access import Gate
from ferserve.serving.analyzer import Analyzer
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.errors import CallCancelledError, DeadlineError, OverloadedError
from ferserve.serving.health import Health
from ferserve.serving.logs import REQUEST_ID
from ferserve.serving.observing import RequestObserver, encoding
from ferserve.serving.purposes import Scope
from ferserve.serving.requests import RequestContext
from ferserve.serving.rest_errors import error_detail, validation_message
from ferserve.serving.rest_gate import authorization_of, chosen_protocol
from ferserve.serving.rest_middleware import request_id_of
from ferserve.serving.rest_requests import StreamOptionsMessage
from ferserve.serving.rest_schema import ErrorMessage, ImageAnalysisMessage, StreamReplyMessage
from ferserve.serving.status import public_error
from ferserve.serving.streams import Frame, FrameReply, FrameStream, StreamConfig, StreamMode

PATH: Final = "/v1/stream"
ID_BYTES: Final = 8
MAX_OPTIONS_CHARS: Final = 4096
HEADROOM_BYTES: Final = 64 * 1024
"""A frame that is too large by up to so much is told so; one larger still ends the stream with code 1009."""
FULL_RETRY_S: Final = 5.0
POLICY_VIOLATION, INTERNAL, RESTARTS, TRY_LATER = 1008, 1011, 1012, 1013
CLOSE_CODES: Final = {
    Reason.OVERLOADED: TRY_LATER,
    Reason.NOT_READY: RESTARTS,
    Reason.INTERNAL: INTERNAL,
}
"""Close codes by reason; every other one is the caller's own fault. Source: RFC 6455, section 7.4, and IANA's list."""
logger = logging.getLogger(__name__)


def max_message_bytes(config: StreamConfig) -> int:
    """The largest WebSocket message that is read at all."""
    return config.max_frame_bytes + ID_BYTES + HEADROOM_BYTES


class StreamEndpoint:
    """Serves `/v1/stream`."""

    def __init__(
        self,
        analyzer: Analyzer,
        health: Health,
        config: StreamConfig,
        *,
        bodies: BodyBudget,
        observer: RequestObserver,
        gate: Gate,
    ) -> None:
        self._gate = gate
        self._analyzer = analyzer
        self._health = health
        self._config = config
        self._bodies = bodies
        self._observer = observer
        self._open = 0

    def add_to(self, app: FastAPI) -> None:
        """Register the route."""
        app.router.routes.append(WebSocketRoute(PATH, self.serve))

    async def serve(self, websocket: WebSocket) -> None:
        """Run one stream from its handshake to its end."""
        if not _is_allowed(websocket, self._config.allowed_origins):
            await websocket.send_denial_response(PlainTextResponse("this origin may not open a stream\n", 403))
            return
        began_s = time.perf_counter()
        call = RequestContext(request_id=request_id_of(websocket.headers))
        await websocket.accept(chosen_protocol(websocket))
        self._open += 1
        reason: Reason | None = Reason.CANCELLED  # stands if the gateway's end cancels the stream
        try:
            await self._run(websocket, call)
            reason = None
        except CallCancelledError:
            reason = None  # to leave is how a caller ends a stream
        except Exception as error:  # noqa: BLE001 -- whatever it is, the caller is told in the one form
            reason = public_error(error).reason
            await _end(websocket, error, call.request_id)
        finally:
            self._open -= 1
            self._observer.request_done(PATH, reason, time.perf_counter() - began_s)

    async def _run(self, websocket: WebSocket, call: RequestContext) -> None:
        if self._open > self._config.max_websockets:
            raise OverloadedError(f"{self._config.max_websockets} streams are open already", retry_after_s=FULL_RETRY_S)
        REQUEST_ID.set(call.request_id)
        self._gate.identify(authorization_of(websocket), Scope.ANALYZE)
        with self._health.accept():
            pass
        incoming = _Incoming(websocket, self._config.max_frame_bytes)
        timeout_s = self._config.first_message_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                asked = await incoming.options()
        except TimeoutError:
            raise DeadlineError(f"no message came within {timeout_s:g} s") from None
        self._analyzer.check_model(asked.model)  # a name that nobody has would fail every frame

        async def reply(answered: FrameReply) -> None:
            with encoding(self._observer):
                text = _reply_json(answered, call.request_id)
            with suppress(WebSocketDisconnect, RuntimeError):  # the caller left; the next read says so
                await websocket.send_text(text)

        places = {StreamMode.LIVE: self._config.live_frames, StreamMode.RECORDED: self._config.recorded_frames}
        options = asked.to_stream_options()
        stream = FrameStream(
            self._analyzer,
            self._health,
            options,
            call=call,
            places=places[options.mode],
            bodies=self._bodies,
            observer=self._observer,
            reply=reply,
            log=lambda _error: None,  # writing the reply logs it
        )
        await stream.run(incoming.frames(asked))


class _Incoming:
    """What comes over one WebSocket."""

    def __init__(self, websocket: WebSocket, max_frame_bytes: int) -> None:
        self._websocket = websocket
        self._max_frame_bytes = max_frame_bytes
        self._first: bytes | None = None

    async def options(self) -> StreamOptionsMessage:
        """Wait for the first message; of query and text the text wins, field by field.

        Raises:
            InvalidRequestError: an option is unknown or out of range.
            CallCancelledError: the caller left.
        """
        asked: dict[str, Any] = dict(self._websocket.query_params)
        message = await self._message()
        if isinstance(message, bytes):
            self._first = message
        else:
            asked |= _json_object(message)
        try:
            return StreamOptionsMessage.model_validate(asked)
        except ValidationError as error:
            raise InvalidRequestError(validation_message(error.errors(include_url=False))) from None

    async def frames(self, asked: StreamOptionsMessage) -> AsyncIterator[Frame]:
        """The frames in the order that they came.

        Raises:
            InvalidRequestError: what came is no frame.
            CallCancelledError: the caller left.
        """
        options = asked.to_options()
        timeout_s = None if asked.timeout_ms is None else asked.timeout_ms / 1000
        message: bytes | str
        message, self._first = self._first if self._first is not None else await self._message(), None
        while True:
            if isinstance(message, str):
                raise InvalidRequestError("options: expected before the first frame, got a text message after it")
            if len(message) < ID_BYTES:
                raise InvalidRequestError(f"frame: expected {ID_BYTES} bytes of id, got {len(message)} bytes in all")
            too_large = len(message) - ID_BYTES > self._max_frame_bytes
            yield Frame(
                id=int.from_bytes(message[:ID_BYTES], "big"),
                image=b"" if too_large else message[ID_BYTES:],
                options=self._too_large() if too_large else options,
                timeout_s=timeout_s,
            )
            del message  # it holds the picture once more, and the next one may be long in coming
            message = await self._message()

    def _too_large(self) -> ImageTooLargeError:
        return ImageTooLargeError(f"frame: expected at most {self._max_frame_bytes} bytes of picture, got more")

    async def _message(self) -> bytes | str:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise CallCancelledError("the caller left")
        binary: bytes | None = message.get("bytes")
        if binary is not None:
            return binary
        text: str = message.get("text") or ""
        return text


def _json_object(text: str) -> dict[str, Any]:
    if len(text) > MAX_OPTIONS_CHARS:
        raise InvalidRequestError(f"options: expected at most {MAX_OPTIONS_CHARS} characters, got {len(text)}")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidRequestError("options: expected a JSON object, got no JSON") from None
    if not isinstance(value, dict):
        raise InvalidRequestError(f"options: expected a JSON object, got {type(value).__name__}")
    return value


def _reply_json(reply: FrameReply, request_id: str) -> str:
    common: dict[str, Any] = {"id": str(reply.id), "dropped_frames": reply.dropped}
    if isinstance(reply.outcome, Exception):
        message = StreamReplyMessage(**common, error=error_detail(reply.outcome, request_id))
    else:
        message = StreamReplyMessage(**common, analysis=ImageAnalysisMessage.model_validate(reply.outcome))
    return message.model_dump_json(exclude_none=True)


async def _end(websocket: WebSocket, error: Exception, request_id: str) -> None:
    """Say why the stream ends, and end it."""
    detail = error_detail(error, request_id)
    code = CLOSE_CODES.get(Reason(detail.reason), POLICY_VIOLATION)
    with suppress(WebSocketDisconnect, RuntimeError):  # the caller left
        await websocket.send_text(ErrorMessage(error=detail).model_dump_json(exclude_none=True))
        await websocket.close(code, detail.reason)


def _is_allowed(connection: HTTPConnection, allowed: tuple[str, ...]) -> bool:
    """Whether the page that opens a stream may: browsers let any page open one anywhere, and say whose page it is."""
    origin = connection.headers.get("origin")
    if origin is None or origin in allowed:
        return True
    return urlsplit(origin).netloc.lower() == connection.headers.get("host", "").lower()
