"""What surrounds every REST request: its id, the last word on errors, and a polite end of the connection."""

import asyncio
import re
import time
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ferserve.serving.errors import NotReadyError
from ferserve.serving.health import RETRY_AFTER_S
from ferserve.serving.logs import REQUEST_ID
from ferserve.serving.observing import RequestObserver
from ferserve.serving.rest_errors import OIP_PREFIX, error_response
from ferserve.serving.status import public_error

REQUEST_ID_HEADER: Final = "X-Request-Id"
API_PREFIXES: Final = ("/v1/", OIP_PREFIX)
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
API_HEADERS: Final = {"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'"}
"""For answers to programs; pages have their own style and scripts."""
REFUSED_ROUTE: Final = "refused_route"
"""In a request's state: the route that it would have come to."""
SHORT_BODY_BYTES: Final = 256 * 1024
"""What may still come of a refused request on a connection that stays open: a new connection would cost both more."""
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 64 * 1024 * 1024
_BODY_OPEN: Final = {"transfer-encoding", "expect"}
"""Headers with which nobody knows whether, or how much of, a body comes after a refusal."""
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")


def request_id_of(headers: Headers) -> str:
    """The caller's own id if it sent a usable one, else a new one."""
    came = headers.get(REQUEST_ID_HEADER, "")
    return came if _REQUEST_ID.fullmatch(came) else uuid.uuid4().hex


class RequestMiddleware:
    """Gives each request an id, answers unforeseen errors, and lets a refused sender read the refusal.

    A body that is refused before it was read leaves bytes on their way. Closing then would reset the connection, and
    the sender would often see the reset instead of the answer. So the answer goes out first, what still comes is thrown
    away for up to `LINGER_S` seconds or `LINGER_BYTES`, and only then the connection is closed. Where a short body was
    announced the connection stays open instead: uvicorn passes over what comes before the next request.
    """

    def __init__(self, app: ASGIApp, observer: RequestObserver) -> None:
        self._app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection scope; all but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        began_s = time.perf_counter()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # Only a shutdown that has waited long enough cancels a request; the server ends right after.
            await exchange.fail(NotReadyError("shut down before the answer was there", retry_after_s=RETRY_AFTER_S))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the caller gets an answer in the one form
            await exchange.fail(error)
        finally:
            self._report(scope, time.perf_counter() - began_s)

    def _report(self, scope: Scope, duration_s: float) -> None:
        route = scope["state"].get(REFUSED_ROUTE) or getattr(scope.get("route"), "path", "")
        if route.startswith(API_PREFIXES):
            self._observer.request_done(route, scope["state"].get("reason"), duration_s)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self.request_id = request_id_of(headers)
        scope.setdefault("state", {})["request_id"] = self.request_id
        REQUEST_ID.set(self.request_id)  # uvicorn runs each request in a context of its own
        self.has_started = False
        self._scope = scope
        self._receive = receive
        self._send = send
        announced = headers.get("content-length", "0")
        self._body_pending = announced != "0" or "transfer-encoding" in headers
        self._is_short = announced.isdecimal() and int(announced) <= SHORT_BODY_BYTES and not _BODY_OPEN & set(headers)

    async def fail(self, error: Exception) -> None:
        """Answer with an error that the application did not answer itself."""
        if self.has_started:
            raise error
        self._scope["state"]["reason"] = public_error(error).reason
        response = error_response(error, self.request_id, self._scope["path"])
        await response(self._scope, self.receive, self.send)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._body_pending = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID_HEADER] = self.request_id
            headers.update(SECURITY_HEADERS)
            if self._scope["path"].startswith(API_PREFIXES):
                headers.update(API_HEADERS)
            if self._body_pending and not self._is_short:
                headers["Connection"] = "close"
        elif self._body_pending and not self._is_short and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        thrown_away = 0
        try:
            async with asyncio.timeout(LINGER_S):
                while self._body_pending and thrown_away < LINGER_BYTES:
                    thrown_away += len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass
